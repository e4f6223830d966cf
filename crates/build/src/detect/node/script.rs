//! What a script of `package.json` begins.

/// Programs that are for development whatever follows them.
const ALWAYS: [&str; 8] =
    ["nodemon", "ts-node-dev", "webpack-dev-server", "vite-node", "live-server", "browser-sync", "parcel", "react-app-rewired"];

/// Programs that are for development with this word behind them.
const WITH: [(&str, &str); 12] = [
    ("next", "dev"),
    ("nuxt", "dev"),
    ("nuxi", "dev"),
    ("astro", "dev"),
    ("remix", "dev"),
    ("vite", "dev"),
    ("vite", "serve"),
    ("react-scripts", "start"),
    ("webpack", "serve"),
    ("ng", "serve"),
    ("vue-cli-service", "serve"),
    ("gatsby", "develop"),
];

/// The development server that a script begins, if it begins one: `nodemon`, `next dev`, `node --watch`.
pub(super) fn development_server(script: &str) -> Option<String> {
    let words: Vec<&str> =
        script.split(|c: char| c.is_whitespace() || ";&|".contains(c)).filter(|word| !word.is_empty()).collect();
    words.iter().enumerate().find_map(|(n, word)| {
        let program = word.rsplit('/').next().unwrap_or(word);
        let next = words.get(n + 1).copied().unwrap_or_default();
        let is_alone = program == "vite" && (next.is_empty() || next.starts_with('-'));
        if is_alone || (ALWAYS.contains(&program) && next != "build") {
            return Some(program.to_owned());
        }
        let watches = matches!((program, next), ("node", "--watch") | ("tsx", "watch"));
        (watches || WITH.contains(&(program, next))).then(|| format!("{program} {next}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn development_servers_are_known_by_their_words() {
        for (script, server) in [
            ("nodemon server.js", Some("nodemon")),
            ("NODE_ENV=x ./node_modules/.bin/nodemon", Some("nodemon")),
            ("tsc && next dev -p 3000", Some("next dev")),
            ("vite", Some("vite")),
            ("vite --host", Some("vite")),
            ("vite preview", None),
            ("react-scripts start", Some("react-scripts start")),
            ("node --watch x.js", Some("node --watch")),
            ("node server.js", None),
            ("next start", None),
            ("vite build; node x", None),
            ("", None),
        ] {
            assert_eq!(development_server(script).as_deref(), server, "{script}");
        }
    }
}
