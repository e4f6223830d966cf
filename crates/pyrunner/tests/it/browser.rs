//! The page in a real browser.

use serde_json::{Value, json};

use crate::host::{Host, possible, until};
use crate::webdriver::{Browser, CONTROL, ENTER, ESCAPE, RELEASE, TAB, with_browser};

const HOSTILE: &str = "<img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script>";

#[test]
fn a_program_is_typed_run_and_brought_back() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--rate", "0"]);
    with_browser(true, |browser| {
        browser.open(&format!("http://{}/", server.address));
        browser.until("!document.getElementById('tools').hidden");
        output_streams_in(browser);
        output_is_no_markup(browser);
        history_brings_back(browser, &server);
        a_running_program_is_cancelled(browser, &server);
        the_editor_lets_go(browser);
        assert_eq!(browser.complaints(), Vec::<Value>::new());
        keys_are_kept_and_sent(browser);
    });
}

/// Replaces the program by typing another one; the editor indents.
fn type_program(browser: &Browser, text: &str) {
    browser.run("document.getElementById('code').value = ''");
    browser.keys("#code", text);
}

fn press_control_enter(browser: &Browser) {
    browser.keys("#code", &format!("{CONTROL}{ENTER}{RELEASE}"));
}

fn ended(browser: &Browser) {
    browser.until("document.getElementById('verdict').textContent && document.getElementById('cancel').hidden");
}

fn output_streams_in(browser: &Browser) {
    type_program(
        browser,
        "import sys, time\nfor step in range(3):\nprint('step', step, flush=True)\nprint('aside', file=sys.stderr)\ntime.sleep(0.1)",
    );
    let typed = browser.run("return document.getElementById('code').value");
    assert!(typed.as_str().unwrap().contains("\n    print('aside', file=sys.stderr)\n    time"), "{typed}");
    assert_eq!(browser.text("#numbers"), "1\n2\n3\n4\n5");
    browser.run(
        "window.seen = []; new MutationObserver(() => window.seen.push(document.getElementById('output').textContent))
             .observe(document.getElementById('output'), { childList: true, subtree: true, characterData: true });",
    );
    press_control_enter(browser);
    ended(browser);
    assert_eq!(browser.text("#verdict"), "Done, exit code 0.");
    // How the two streams meet is chance; each is told whole and in its order.
    let written = |stream: &str| {
        browser.run(&format!(
            "return [...document.querySelectorAll('#output span.{stream}')].map((piece) => piece.textContent).join('')"
        ))
    };
    assert_eq!((written("stdout"), written("stderr")), (json!("step 0\nstep 1\nstep 2\n"), json!("aside\naside\naside\n")));
    // It grew at its end only. That it comes while the program runs is seen where one is cancelled.
    let seen = browser.run("return window.seen.filter((text) => text)");
    let seen: Vec<&str> = seen.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(!seen.is_empty() && seen.windows(2).all(|pair| pair[1].starts_with(pair[0])), "{seen:?}");
    let bars = browser.run("return [...document.querySelectorAll('meter')].map((bar) => [bar.value > 0, bar.max])");
    assert_eq!(bars, json!([[true, 10000], [true, 10000], [true, 268435456]]));
    assert!(browser.shows("#usage") && browser.text("#memory-text").ends_with(" of 256 MiB"));
}

fn output_is_no_markup(browser: &Browser) {
    let program = format!("text = '{HOSTILE}'\nimport sys; print(text); print(text, file=sys.stderr)");
    type_program(browser, &program);
    press_control_enter(browser);
    ended(browser);
    let shown = browser.run("return document.getElementById('output').textContent");
    assert_eq!(shown, json!(format!("{HOSTILE}\n{HOSTILE}\n")));
    browser.until(&format!("document.querySelector('#history .first').textContent === {}", json!(format!("text = '{HOSTILE}'"))));
    let made =
        browser.run("return document.querySelectorAll('main img, main script, #output :not(span), #history .first *').length");
    assert_eq!((made, browser.run("return window.pwned === undefined")), (json!(0), json!(true)));
}

fn history_brings_back(browser: &Browser, server: &Host) {
    let first = "document.querySelectorAll('#history .first')";
    assert_eq!(browser.run(&format!("return [...{first}].map((line) => line.textContent)[1]")), json!("import sys, time"));
    browser.click("#history li:nth-child(2) button");
    browser.until("document.getElementById('code').value.startsWith('import sys, time\\nfor step')");
    // Another visit finds what the server remembers.
    until("history is written", || {
        server.get("/executions").json()["executions"].as_array().filter(|all| all.len() >= 2).map(|_| ())
    });
    browser.open(&format!("http://{}/", server.address));
    browser.until(&format!("{first}.length === 2"));
    browser.click("#history li:nth-child(1) button");
    browser.until("document.getElementById('code').value.endsWith('print(text, file=sys.stderr)')");
    assert_eq!(browser.run("return document.querySelectorAll('#history .first *').length"), json!(0));
}

fn a_running_program_is_cancelled(browser: &Browser, server: &Host) {
    type_program(browser, "print('on', flush=True)\nwhile True: pass");
    browser.click("#run");
    browser.until("document.getElementById('output').textContent === 'on\\n'");
    browser.click("#cancel");
    ended(browser);
    assert_eq!(browser.text("#verdict"), "Cancelled.");
    server.until_running(0);
}

fn the_editor_lets_go(browser: &Browser) {
    type_program(browser, &format!("if 1:{ENTER}pass{TAB}{ESCAPE}{TAB}"));
    let state = "return [document.getElementById('code').value, document.activeElement.id === 'code']";
    assert_eq!(browser.run(state), json!(["if 1:\n    pass    ", false]));
    browser.keys("#examples", "Primes");
    browser.until("document.getElementById('code').value.includes('def primes')");
    let theme = "return document.documentElement.dataset.theme || ''";
    let before = browser.run(theme);
    browser.click("#theme");
    assert_ne!(browser.run(theme), before);
    // Everything that takes input says what it is for.
    let unnamed = "return [...document.querySelectorAll('textarea, input, select, meter, button')].filter((element) =>
        !(element.labels && element.labels.length) && !element.getAttribute('aria-labelledby') && !element.textContent).length";
    assert_eq!(browser.run(unnamed), json!(0));
}

fn keys_are_kept_and_sent(browser: &Browser) {
    browser.click("#access summary");
    browser.keys("#key", &format!("no-such-key{TAB}"));
    browser.until("sessionStorage.getItem('pyrunner-key') === 'no-such-key'");
    press_control_enter(browser);
    ended(browser);
    let verdict = browser.text("#verdict");
    assert!(verdict.starts_with("A valid API key is needed"), "{verdict}");
    assert_eq!(browser.run("return document.activeElement.id"), json!("key"));
}

#[test]
fn without_scripts_a_form_does_it() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--rate", "0"]);
    with_browser(false, |browser| {
        browser.open(&format!("http://{}/", server.address));
        assert!(!browser.shows("#tools"), "scripts run although they must not");
        browser.keys("#code", &format!("print('{HOSTILE}')"));
        browser.click("#run");
        assert_eq!(
            (browser.text_to_come("#verdict"), browser.text("#output")),
            ("Done, exit code 0.".to_owned(), HOSTILE.to_owned())
        );
        assert!(browser.shows("#usage"));
        let complaints = browser.complaints();
        assert!(complaints.is_empty(), "{complaints:?}");
    });
}
