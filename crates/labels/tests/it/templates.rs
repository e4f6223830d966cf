//! Default rules.

use coracle_labels::{Container, RuleTemplate};

use crate::sketch::container;

fn subject() -> Container {
    let labels = [("com.docker.compose.project", "My_Site"), ("com.docker.compose.service", "web"), ("domain", "shop.example")];
    container("my_site-web-1", &labels)
}

fn rendered(template: &str) -> Result<String, String> {
    let template: RuleTemplate = template.parse().map_err(|error| format!("{error}"))?;
    template.render(&subject()).map_err(|error| format!("{error}"))
}

#[test]
fn templates_are_those_of_go_with_the_common_functions() {
    for (template, rule) in [
        ("Host(`a`)", "Host(`a`)"),
        ("{{ .Name }}|{{ .ContainerName }}", "web-My-Site|my_site-web-1"),
        (r#"{{ index .Labels "domain" }}"#, "shop.example"),
        (r#"{{ .Labels.domain }}"#, "shop.example"),
        (r#"{{ index .Labels "nothing" }}!"#, "!"),
        (r#"{{ index .Labels "com.docker.compose.service" | upper }}"#, "WEB"),
        ("{{ normalize .ContainerName }}", "my-site-web-1"),
        ("{{ lower .Name }}", "web-my-site"),
        (r#"{{ .Name | lower | replace "-" "." }}.example"#, "web.my.site.example"),
        (r#"{{ trimSuffix "-My-Site" .Name }}"#, "web"),
        (r#"{{ default "b" (index .Labels "nothing") }}"#, "b"),
        (r#"{{ index .Labels "nothing" | default "b" }}"#, "b"),
        (r#"{{ first (splitList "-" .Name) }}"#, "web"),
        (r#"{{ join "+" (splitList "-" .Name) }}"#, "web+My+Site"),
        (r#"{{ if contains "web" .Name }}yes{{ else }}no{{ end }}"#, "yes"),
        (r#"{{ if eq .Name "x" }}1{{ else if hasPrefix "web" .Name }}2{{ else }}3{{ end }}"#, "2"),
        (r#"{{ with index .Labels "domain" }}Host(`{{ . }}`){{ end }}"#, "Host(`shop.example`)"),
        (r#"{{ with index .Labels "nothing" }}a{{ else }}{{ $.Name }}{{ end }}"#, "web-My-Site"),
        (r#"{{ $d := index .Labels "domain" }}{{ $d }},{{ $d }}"#, "shop.example,shop.example"),
        ("a {{- /* nothing */ -}} b", "ab"),
        ("a {{- `}}` -}} b", "a}}b"),
        (r#"{{ printf "%s.%d%%" "a" 3 }}"#, "a.3%"),
        (r#"{{ trunc 3 .Name }}{{ trunc -4 .Name }}{{ substr 0 2 "abc" }}"#, "webSiteab"),
        (r#"{{ ternary "a" "b" (and true (not false)) }}"#, "a"),
        (r#"{{ regexReplaceAll "^(\\w+)-.*$" .Name "${1}" }}"#, "web"),
        (r#"{{ coalesce (index .Labels "a") "z" }}"#, "z"),
        (r#"{{ (index .Labels "domain") | squote }}"#, "'shop.example'"),
        (r#"{{ index (splitList "." "a.b") 1 }}{{ len .Name }}{{ add 1 2 }}"#, "b113"),
    ] {
        assert_eq!(rendered(template).as_deref(), Ok(rule), "{template}");
    }
    assert_eq!(RuleTemplate::default().render(&subject()).unwrap(), "Host(`web-My-Site`)");
}

#[test]
fn what_cannot_be_said_is_named() {
    for (template, word) in [
        ("{{ .Toto }}", ".Toto"),
        ("{{ .Name.Deeper }}", ".Deeper"),
        ("{{ env \"HOME\" }}", "env"),
        ("{{ range .Labels }}x{{ end }}", "range"),
        ("{{ .Name ", "not closed"),
        ("{{ if .Name }}x", "if"),
        ("{{ end }}", "end"),
        ("{{ }}", "missing"),
        ("{{ \"a }}", "not closed"),
        ("{{ (.Name }}", "not closed"),
        ("{{ $x }}", "$x"),
        ("{{ .Name .Name }}", "no function"),
        ("{{ .Name | .Name }}", "no function"),
        ("{{ lower }}", "more operands"),
        ("{{ lower .Name .Name }}", "2 operands"),
        ("{{ regexMatch \"(\" .Name }}", "regular expression"),
        ("{{ repeat 100000 .Name }}", "too long"),
        ("{{ index .Name 1 }}", "index"),
        ("{{ first .Name }}", "list"),
        ("{{ # }}", "#"),
    ] {
        let error = rendered(template).unwrap_err();
        assert!(error.contains(word), "{template}: {error}");
    }
    let deep = format!("{{{{ {}.Name{} }}}}", "(".repeat(1000), ")".repeat(1000));
    assert!(rendered(&deep).is_err());
    assert!(rendered(&"{{ if true }}".repeat(1000)).is_err());
}
