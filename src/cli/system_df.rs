//! `rbuild system df`: what takes how much disk.

use super::image_commands::{list_with, now};
use super::prune::collector;
use super::table::{cut, human_size, table};
use super::template::Template;
use super::{CommandResult, Ctx};
use crate::digest::ImageId;
use crate::gc::{ContainerUse, DiskUse, Sums};
use crate::image::{ago, format_time};
use crate::reference::Reference;
use crate::runtime::{Container, MountPoint, MountSource};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Shows how much disk is used.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show each image, volume and result of the build cache
    #[arg(short, long)]
    verbose: bool,
    /// Print with a template, as a table, or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Runs the command.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let template = args.format.as_deref().filter(|f| *f != "table").map(Template::parse).transpose()?;
    let containers = super::containers::open(ctx)?.list()?;
    let known: Vec<ContainerUse> = containers.iter().map(container_use).collect();
    let used = collector(ctx)?.disk_use(&known)?;
    let text = match (&template, args.verbose) {
        (Some(template), true) => {
            list_with(template, &[verbose_json(&used, &containers)], &title, "*formatter.diskUsageContext")?
        }
        (Some(template), false) => {
            list_with(template, &rows(&used), &title, "*formatter.diskUsageImagesContext")?
        }
        (None, true) => verbose(&used, &containers, now()),
        (None, false) => summary(&used),
    };
    ctx.out.text(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn container_use(container: &Container) -> ContainerUse {
    let record = &container.record;
    let volume = |mount: &MountPoint| match &mount.source {
        MountSource::Volume { name, .. } => Some(name.clone()),
        _ => None,
    };
    ContainerUse {
        id: record.id.to_string(),
        image: record.image_id.parse().ok().map(ImageId),
        runs: container.state.status.is_live(),
        volumes: record.mounts.iter().filter_map(volume).collect(),
    }
}

fn rows(used: &DiskUse) -> Vec<Value> {
    let kinds = [
        ("Images", used.images),
        ("Containers", used.containers),
        ("Local Volumes", used.volumes),
        ("Build Cache", used.cache),
    ];
    kinds.iter().map(|(kind, sums)| row(kind, *sums)).collect()
}

fn row(kind: &str, sums: Sums) -> Value {
    let mut reclaimable = human_size(sums.reclaimable);
    // docker has no percentage for the build cache
    if kind != "Build Cache" && sums.bytes > 0 {
        let percent = u128::from(sums.reclaimable) * 100 / u128::from(sums.bytes);
        reclaimable.push_str(&format!(" ({percent}%)"));
    }
    json!({
        "Type": kind,
        "TotalCount": sums.total.to_string(),
        "Active": sums.active.to_string(),
        "Size": human_size(sums.bytes),
        "Reclaimable": reclaimable,
        "SizeBytes": sums.bytes,
        "ReclaimableBytes": sums.reclaimable,
    })
}

fn summary(used: &DiskUse) -> String {
    let columns = ["Type", "TotalCount", "Active", "Size", "Reclaimable"];
    let mut cells = vec![columns.map(title).to_vec()];
    let cell = |row: &Value, column: &str| row[column].as_str().unwrap_or_default().to_owned();
    cells.extend(rows(used).iter().map(|row| columns.map(|column| cell(row, column)).to_vec()));
    table(&cells)
}

/// Gives the head of a column.
fn title(field: &str) -> String {
    match field {
        "TotalCount" => "TOTAL".into(),
        other => other.to_uppercase(),
    }
}

fn verbose(used: &DiskUse, containers: &[Container], now: i64) -> String {
    let mut out = String::from("Images space usage:\n\n");
    out.push_str(&table(&image_rows(used, now)));
    out.push_str("\nContainers space usage:\n\n");
    out.push_str(&super::containers::usage_table(containers));
    out.push_str("\nLocal Volumes space usage:\n\n");
    let mut rows = vec![vec!["VOLUME NAME".to_owned(), "LINKS".into(), "SIZE".into()]];
    rows.extend(
        used.volume_list.iter().map(|v| vec![v.name.clone(), v.links.to_string(), human_size(v.bytes)]),
    );
    out.push_str(&table(&rows));
    out.push_str(&format!("\nBuild cache usage: {}\n\n", human_size(used.cache.bytes)));
    out.push_str(&table(&cache_rows(used, now)));
    out
}

fn image_rows(used: &DiskUse, now: i64) -> Vec<Vec<String>> {
    let head =
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for row in &used.image_list {
        let none = || "<none>".to_owned();
        let name = row.image.names.first();
        rows.push(vec![
            name.map_or_else(none, Reference::familiar_name),
            name.and_then(Reference::tag).map_or_else(none, str::to_owned),
            row.image.shown_id().short().to_owned(),
            row.image.created().map_or("N/A".into(), |time| ago(time, now)),
            human_size(row.shared.saturating_add(row.unique)),
            human_size(row.shared),
            human_size(row.unique),
            row.containers.to_string(),
        ]);
    }
    rows
}

fn cache_rows(used: &DiskUse, now: i64) -> Vec<Vec<String>> {
    let head = ["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "SHARED", "IN USE", "STEP"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for row in &used.cache_list {
        rows.push(vec![
            row.id.get(..12).unwrap_or(&row.id).to_owned(),
            row.kind.to_owned(),
            human_size(row.bytes),
            row.created.map_or("N/A".into(), |time| ago(time, now)),
            ago(row.last_used, now),
            row.shared.to_string(),
            row.in_use.to_string(),
            cut(&row.label, 45),
        ]);
    }
    rows
}

fn verbose_json(used: &DiskUse, containers: &[Container]) -> Value {
    let image = |row: &crate::gc::ImageUse| {
        json!({
            "ID": row.image.shown_id().to_string(),
            "Names": row.image.names.iter().map(Reference::familiar).collect::<Vec<_>>(),
            "SharedSize": row.shared,
            "UniqueSize": row.unique,
            "Containers": row.containers,
        })
    };
    let cache = |row: &crate::gc::CacheUse| {
        json!({
            "ID": row.id,
            "CacheType": row.kind,
            "Description": row.label,
            "Size": row.bytes,
            "CreatedAt": row.created.map(format_time),
            "LastUsedAt": format_time(row.last_used),
            "Shared": row.shared,
            "InUse": row.in_use,
        })
    };
    json!({
        "Totals": rows(used),
        "Images": used.image_list.iter().map(image).collect::<Vec<_>>(),
        "Containers": super::containers::rows(containers),
        "Volumes": used.volume_list.iter()
            .map(|v| json!({ "Name": v.name, "Links": v.links, "Size": v.bytes })).collect::<Vec<_>>(),
        "BuildCache": used.cache_list.iter().map(cache).collect::<Vec<_>>(),
    })
}
