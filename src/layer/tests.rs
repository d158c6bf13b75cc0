//! The round trip: a real tree, its diff, its tar, and back.
