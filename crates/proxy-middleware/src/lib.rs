//! What is done with requests and answers on their way: redirects, authentication, limits, headers, compression, files.
