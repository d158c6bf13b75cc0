//! What the commands themselves tell `events`: what they have done to images and networks, and what they have pruned.
//!
//! Containers and volumes tell of themselves, in the runtime, since more than commands changes them.

use super::Ctx;
use crate::image::Image;
use crate::runtime::record_other;

/// Tells what was done to an image, which `id` names in docker's way; its labels come along.
pub(super) fn to_image(ctx: &Ctx, action: &str, id: &str, name: &str, image: Option<&Image>) {
    let labels = image.into_iter().flat_map(|image| &image.config.config.labels);
    let mut attributes: Vec<(&str, String)> = labels.map(|(k, v)| (k.as_str(), v.clone())).collect();
    attributes.push(("name", name.to_owned()));
    record_other(&ctx.root, "image", action, id, &attributes);
}

/// Tells what was done to a network; `container` is who came or went.
pub(super) fn to_network(ctx: &Ctx, action: &str, id: &str, name: &str, container: Option<&str>) {
    let mut attributes = vec![("name", name.to_owned()), ("type", "bridge".to_owned())];
    attributes.extend(container.map(|container| ("container", container.to_owned())));
    record_other(&ctx.root, "network", action, id, &attributes);
}

/// Tells that a kind of things was pruned, and how many bytes that freed.
pub(super) fn pruned(ctx: &Ctx, kind: &str, bytes: u64) {
    record_other(&ctx.root, kind, "prune", "", &[("reclaimed", bytes.to_string())]);
}
