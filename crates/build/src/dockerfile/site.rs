//! Static sites, served by nginx.

use coracle_model::CommandLine;
use coracle_model::command::{Piece, Word};

use super::health::Prober;
use super::{Image, copy, run};

/// What serves.
const NGINX: &str = "nginx:1-alpine";

/// nginx's settings for a static site, whose requests the proxy logs already: files that belong to root, nothing served whose name begins with a dot (but
/// `.well-known`), nor what describes the app.
const SETTINGS: &str = "daemon off;
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  access_log off;
  sendfile on;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server {
    listen PORT;
    root /srv/site;
    index index.html;
    absolute_redirect off;
    location ~ /\\.(?!well-known/) { return 404; }
    location ~ ^/(coracle\\.toml|Procfile|Dockerfile)$ { return 404; }
    location / { try_files $uri $uri/ $uri.html =404; }
    error_page 404 /404.html;
  }
}";

/// Where the image keeps them.
const FILE: &str = "/etc/nginx/coracle.conf";

pub(super) fn stage(root: &str, image: &Image<'_>) -> String {
    // A Dockerfile writes no files by itself; awk does so without a shell in between.
    let write = format!("BEGIN {{ print ARGV[1] > \"{FILE}\" }}");
    let write_settings = run(&["awk", &write, &settings(image.port())]);
    let site = copy(&[&format!("{root}/")], "/srv/site/");
    let says = image.says(Prober::Curl);
    format!(
        "FROM {NGINX}\n# nginx's settings, which know no variables: the port is the one that the app has in coracle.toml.\n{write_settings}{says}\
         # Not as root: this is nginx in the official images. The files come last, since they are what changes.\nUSER 101:101\n{site}"
    )
}

pub(super) fn settings(port: u16) -> String {
    SETTINGS.replace("PORT", &port.to_string())
}

/// nginx for a static site. It listens on the port of its settings whatever `$PORT` says.
pub(crate) fn static_server() -> CommandLine {
    let word = |text: &str| Word(vec![Piece::Text(text.to_owned())]);
    CommandLine { assignments: Vec::new(), words: ["nginx", "-c", FILE].map(word).to_vec() }
}
