//! Which run of the kernel this is: process numbers and start times mean nothing in another one.

/// Gives the id that the kernel chose at its start; empty where there is no `/proc`.
pub fn id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}
