//! Single-use sandboxes for untrusted Python: slots, zygotes, limits, and the daemon that owns them.
