//! Traefik's container labels, read into routes, services and middlewares.
