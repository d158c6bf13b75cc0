//! The kernel behind safe functions: the only room with `unsafe`.
//!
//! Most of what rbuild asks of Linux has a safe wrapper in rustix or nix, and then the caller uses that. Here is what
//! has none (`clone3`, `mount_setattr`, seccomp filters, device programs) and what has one that is easy to misuse: opening a path
//! inside a directory tree that somebody else filled ([`inroot`]), extended attributes without following links
//! ([`xattr`]).

pub mod boot;
pub mod bpf;
pub mod file;
pub mod fsutil;
pub mod inroot;
pub mod leash;
pub mod mount;
pub mod netlink;
pub mod netlink_conntrack;
pub mod netlink_nft;
pub mod netlink_route;
pub mod process;
pub mod run_dir;
pub mod usage;
pub mod xattr;
