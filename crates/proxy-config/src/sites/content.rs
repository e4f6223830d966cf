//! What is done with a site's requests, and who answers them.

use coracle_proxy_table::{
    BasicAuth, BodyLimit, Compress, Credential, Headers, Middleware, MiddlewareId, RedirectRegex, ServiceId, StaticFiles,
    StripPrefix,
};

use super::{Site, is_path};
use coracle_toml_reading::{Entry, quoted};

use crate::reading::{Reader, Section};
use crate::services;
use crate::table::Draft;

/// Reads one site's lines into middlewares and a service.
pub(super) struct Content<'r, 't> {
    reader: &'r mut Reader<'t>,
    draft: &'r mut Draft,
    site: &'r Site,
    middlewares: Vec<MiddlewareId>,
}

impl<'r, 't> Content<'r, 't> {
    /// Begins with the middleware for `Strict-Transport-Security`, which is on every answer.
    pub(super) fn new(reader: &'r mut Reader<'t>, draft: &'r mut Draft, site: &'r Site, hsts: Option<MiddlewareId>) -> Self {
        Self { reader, draft, site, middlewares: hsts.into_iter().collect() }
    }

    /// The middlewares in their order, and the service.
    pub(super) fn read(mut self, entry: &Entry<'_, '_>, section: &mut Section<'_, '_>) -> (Vec<MiddlewareId>, Option<ServiceId>) {
        if let Some(headers) = section.take("headers").and_then(|entry| headers(self.reader, &entry)) {
            self.add("headers", Middleware::Headers(Box::new(headers)));
        }
        if section.take("compress").and_then(|entry| self.reader.boolean(&entry)) == Some(true) {
            let id = self.draft.add_middleware("#compress", Middleware::Compress(Compress::default()));
            self.middlewares.push(id);
        }
        if let Some(users) = section.take("basic_auth") {
            let auth = BasicAuth { users: users_of(self.reader, &users), ..BasicAuth::default() };
            self.add("basic-auth", Middleware::BasicAuth(auth));
        }
        if let Some(max_bytes) = section.take("max_body").and_then(|entry| self.reader.bytes(&entry)) {
            self.add("max-body", Middleware::BodyLimit(BodyLimit { max_bytes }));
        }
        let named = section.take("middlewares");
        if let Some(names) = &named {
            self.middlewares.extend(self.draft.middleware_names(self.reader, names));
        }
        if let Some(prefix) = section.take("strip_prefix").and_then(|entry| self.strip_prefix(&entry)) {
            self.add("strip-prefix", Middleware::StripPrefix(StripPrefix { prefixes: vec![prefix] }));
        }
        let service = self.answer(entry, section, named.is_some());
        (self.middlewares, service)
    }

    fn add(&mut self, what: &str, middleware: Middleware) {
        let id = self.draft.add_middleware(&format!("{}#{what}", self.site.name), middleware);
        self.middlewares.push(id);
    }

    /// Exactly one of targets, a named service, files or another URL; files may come before targets.
    fn answer(&mut self, entry: &Entry<'_, '_>, section: &mut Section<'_, '_>, has_middlewares: bool) -> Option<ServiceId> {
        let [to, named, files, elsewhere] = ["to", "service", "files", "redirect_to"].map(|key| section.take(key));
        if let Some(second) = elsewhere.as_ref().and(to.as_ref().or(named.as_ref()).or(files.as_ref())) {
            self.reader.wrong_key(second, "does not go with redirect_to", None);
        }
        if let (Some(_), Some(named)) = (&to, &named) {
            self.reader.wrong_key(named, "does not go with to", None);
        }
        if to.is_none() && named.is_none() && files.is_none() && elsewhere.is_none() && !has_middlewares {
            let hint = "write to = \"127.0.0.1:3000\" or files = \"/srv/www\"";
            self.reader.wrong_key(entry, "leads nowhere", Some(hint));
        }
        if let Some(entry) = elsewhere {
            let redirect = redirect_to(self.reader, &entry)?;
            self.add("redirect", Middleware::RedirectRegex(redirect));
        }
        let fallback = section.take("fallback");
        match files {
            Some(entry) => {
                let mut files = StaticFiles::new(self.reader.path(&entry)?.to_string_lossy());
                files.spa_fallback = fallback.and_then(|entry| self.reader.text(&entry)).map(str::to_owned);
                files.pass_missing = to.is_some() || named.is_some();
                self.add("files", Middleware::StaticFiles(files));
            }
            None => {
                if let Some(fallback) = fallback {
                    self.reader.wrong_key(&fallback, "belongs to files; here are none", None);
                }
            }
        }
        self.service(section, to, named)
    }

    fn service(
        &mut self,
        section: &mut Section<'_, '_>,
        to: Option<Entry<'_, '_>>,
        named: Option<Entry<'_, '_>>,
    ) -> Option<ServiceId> {
        if let Some(to) = to {
            let service = services::service(self.reader, section, Some(&to));
            return Some(self.draft.add_service(&self.site.name, service));
        }
        services::refuse_sharing(self.reader, section);
        self.draft.service_name(self.reader, &named?)
    }

    /// `true` for the site's own path, or another.
    fn strip_prefix(&mut self, entry: &Entry<'_, '_>) -> Option<String> {
        match entry.value.get_ref().as_bool() {
            Some(false) => None,
            Some(true) if self.site.path == "/" => {
                self.reader.wrong(
                    entry,
                    "the site has no path to strip",
                    Some("write path = \"/api\", or the prefix in place of true"),
                );
                None
            }
            Some(true) => Some(self.site.path.clone()),
            None => {
                let prefix = self.reader.text(entry)?;
                if !is_path(prefix) {
                    self.reader.wrong(entry, "is no path, as /api", None);
                }
                Some(prefix.to_owned())
            }
        }
    }
}

/// Names with the hashes of their passwords.
fn users_of(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Vec<Credential> {
    let mut users = Vec::new();
    for (item, text) in reader.texts(entry) {
        if !text.split_once(':').is_some_and(|(name, hash)| !name.is_empty() && !hash.is_empty()) {
            reader.wrong_key(&item, "expected name:hash, as htpasswd writes it", None);
        }
        users.push(Credential(text.to_owned()));
    }
    users
}

/// Response headers by name.
fn headers(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Option<Headers> {
    let mut headers = Headers::default();
    let table = reader.table(entry)?;
    for (name, value) in table {
        let inner = Entry {
            key: name.get_ref(),
            path: format!("{}.{}", entry.path, quoted(name.get_ref())),
            key_span: name.span(),
            value,
        };
        // An empty value takes the header away.
        let Some(value) = value.get_ref().as_str() else {
            reader.wrong(&inner, "expected a string", None);
            continue;
        };
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if inner.key.is_empty() || !inner.key.bytes().all(is_token) {
            reader.wrong_key(&inner, "is no name for a header", None);
        }
        if value.chars().any(|character| character.is_control() && character != '\t') {
            reader.wrong(&inner, "a header's value has no control characters", None);
        }
        headers.custom_response_headers.insert(inner.key.to_owned(), value.to_owned());
    }
    Some(headers)
}

/// The same path and query at another URL.
fn redirect_to(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Option<RedirectRegex> {
    let url = reader.text(entry)?;
    let is_url = ["http://", "https://"]
        .iter()
        .any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')));
    if !is_url || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        reader.wrong(entry, "is no URL, as https://shop.example", None);
    }
    let target = url.trim_end_matches('/').replace('$', "$$");
    Some(RedirectRegex { regex: "^https?://[^/]+(.*)$".to_owned(), replacement: format!("{target}${{1}}"), permanent: true })
}
