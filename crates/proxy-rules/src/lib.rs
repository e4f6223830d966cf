//! The rule language of routes: parsing, matching, and finding the route among many.
