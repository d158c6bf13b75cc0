//! Archives that lie. Each must be refused and leave neither a name nor an image.

use super::*;
use crate::image::tests::Space;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

/// An archive in the making: members by name.
struct Archive {
    members: BTreeMap<String, Vec<u8>>,
}

fn layer(text: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, format!("file-{text}"), text.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = crate::layer::encoder(Vec::new(), crate::layer::Compression::Gzip(6)).unwrap();
    io::Write::write_all(&mut out, bytes).unwrap();
    out.finish().unwrap()
}

fn config_of(layers: &[Vec<u8>]) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(|l| Digest::sha256_of(l).to_string()).collect();
    json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}})
}

impl Archive {
    fn new() -> Self {
        Self { members: BTreeMap::new() }
    }

    fn blob(&mut self, bytes: Vec<u8>) -> Value {
        let digest = Digest::sha256_of(&bytes);
        let size = bytes.len();
        self.members.insert(blob_name(&digest), bytes);
        json!({"digest": digest.to_string(), "size": size})
    }

    fn typed(&mut self, kind: &str, bytes: Vec<u8>) -> Value {
        let mut descriptor = self.blob(bytes);
        descriptor["mediaType"] = kind.into();
        descriptor
    }

    /// An OCI layout of one image whose documents `edit` may spoil before they get their digests.
    fn oci(edit: impl FnOnce(&mut Value, &mut Value)) -> Self {
        Self::oci_with(edit, |_| ())
    }

    fn oci_with(edit: impl FnOnce(&mut Value, &mut Value), index: impl FnOnce(&mut Value)) -> Self {
        let mut archive = Self::new();
        let layers = [layer("one"), layer("two")];
        let mut config = config_of(&layers);
        let descriptors: Vec<Value> =
            layers.iter().map(|l| archive.typed(media_type::LAYER_GZIP, gzip(l))).collect();
        let mut manifest =
            json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "layers": descriptors});
        edit(&mut config, &mut manifest);
        if manifest["config"].is_null() {
            manifest["config"] = archive.typed(media_type::CONFIG, documents::to_json(&config));
        }
        let mut entry = archive.typed(media_type::MANIFEST, documents::to_json(&manifest));
        entry["annotations"] = json!({"io.containerd.image.name": "docker.io/library/evil:latest"});
        let mut top = json!({"schemaVersion": 2, "manifests": [entry]});
        index(&mut top);
        archive.members.insert("index.json".into(), documents::to_json(&top));
        archive.members.insert("oci-layout".into(), crate::image::index::LAYOUT_BYTES.to_vec());
        archive
    }

    fn docker(edit: impl FnOnce(&mut Value, &mut Value)) -> Self {
        let mut archive = Self::new();
        let layers = [layer("one"), layer("two")];
        let mut config = config_of(&layers);
        archive.members.insert("a/layer.tar".into(), layers[0].clone());
        archive.members.insert("b/layer.tar".into(), layers[1].clone());
        let mut manifest = json!([{"Config": null, "RepoTags": ["evil:latest"],
            "Layers": ["a/layer.tar", "b/layer.tar"]}]);
        edit(&mut config, &mut manifest);
        let config = documents::to_json(&config);
        let name = format!("{}.json", Digest::sha256_of(&config).encoded());
        if let Some(item) = manifest.get_mut(0).filter(|item| item["Config"].is_null()) {
            item["Config"] = name.as_str().into();
        }
        archive.members.insert(name, config);
        archive.members.insert("manifest.json".into(), documents::to_json(&manifest));
        archive
    }

    fn tar(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in &self.members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn spoil(mut self, part: &str, edit: impl Fn(&mut Vec<u8>)) -> Self {
        let found = self.members.iter_mut().find(|(name, _)| name.contains(part)).unwrap();
        edit(found.1);
        self
    }

    fn load(&self, space: &Space) -> Result<Vec<Loaded>, ImageError> {
        space.images.load(LoadInput::Stream(Box::new(io::Cursor::new(self.tar()))), None)
    }

    #[track_caller]
    fn refused(&self, part: &str) {
        let space = Space::new();
        let error = self.load(&space).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        let listing = space.images.list().unwrap();
        assert!(listing.images.is_empty() && listing.damaged.is_empty());
        let left = fs::read_dir(space.path("store/tmp")).unwrap().count();
        assert_eq!(left, 0, "something is left in tmp");
    }
}

#[test]
fn honest_archives_are_loaded() {
    for archive in [Archive::oci(|_, _| ()), Archive::docker(|_, _| ())] {
        let space = Space::new();
        let loaded = archive.load(&space).unwrap();
        assert_eq!(loaded[0].names[0].familiar(), "evil:latest");
        space.images.validate(&loaded[0].id).unwrap();
        assert_eq!(archive.load(&space).unwrap(), loaded);
        // as a directory
        let dir = space.path("dir");
        for (name, bytes) in &archive.members {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        assert_eq!(space.images.load(LoadInput::Path(dir), None).unwrap(), loaded);
    }
}

#[test]
fn outer_compression_is_told_by_the_first_bytes() {
    use crate::layer::{Compression, encoder};
    let tar = Archive::docker(|_, _| ()).tar();
    let compressed = |how| {
        let mut out = encoder(Vec::new(), how).unwrap();
        io::Write::write_all(&mut out, &tar).unwrap();
        out.finish().unwrap()
    };
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    io::Write::write_all(&mut xz, &tar).unwrap();
    for bytes in [compressed(Compression::Gzip(1)), compressed(Compression::Zstd(1)), xz.finish().unwrap()] {
        let space = Space::new();
        let file = space.path("archive");
        fs::write(&file, &bytes).unwrap();
        space.images.load(LoadInput::Path(file.clone()), None).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        assert!(space.images.load(LoadInput::Path(file), None).is_err());
    }
}

#[test]
fn blobs_that_lie_are_refused() {
    let layer_name = blob_name(&Digest::sha256_of(&gzip(&layer("one"))));
    let flip = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    Archive::oci(|_, _| ()).spoil(&layer_name, flip).refused("lies about");
    Archive::oci(|_, _| ()).spoil(&layer_name, |b| b.push(0)).refused("its descriptor says");
    Archive::oci(|_, m| m["layers"][0]["size"] = 5.into()).refused("its descriptor says");
    Archive::oci(|_, m| m["layers"][0]["digest"] = format!("sha256:{}", "0".repeat(64)).into())
        .refused("it has no \"blobs/sha256/0000");
    Archive::oci(|_, m| m["layers"][0]["digest"] = "sha256:../../../etc/passwd".into())
        .refused("is not a digest");
    let other = Digest::sha256_of(b"other").to_string();
    Archive::oci(|c, _| c["rootfs"]["diff_ids"][0] = other.as_str().into()).refused("diff ID");
    Archive::docker(|c, _| c["rootfs"]["diff_ids"][1] = other.as_str().into()).refused("diff ID");
    // the layers exchanged: both are good, neither is what it says
    Archive::docker(|_, m| m[0]["Layers"] = json!(["b/layer.tar", "a/layer.tar"])).refused("diff ID");
    Archive::docker(|_, m| m[0]["Config"] = "a/layer.tar".into()).refused("cannot be read");
    let config = format!("{}.json", "1".repeat(64));
    let mut archive = Archive::docker(|_, m| m[0]["Config"] = config.as_str().into());
    archive.members.insert(config.clone(), documents::to_json(&config_of(&[layer("one"), layer("two")])));
    archive.refused("its digest is sha256:");
}

#[test]
fn a_known_diff_id_does_not_vouch_for_another_blob() {
    let space = Space::new();
    Archive::oci(|_, _| ()).load(&space).unwrap();
    // the same config, and for its first layer the blob of something else
    let mut evil = Archive::new();
    let wrong = evil.typed(media_type::LAYER_GZIP, gzip(&layer("evil")));
    let mut archive = Archive::oci(|_, m| m["layers"][0] = wrong);
    archive.members.extend(evil.members);
    let error = archive.load(&space).unwrap_err().to_string();
    assert!(error.contains("diff ID"), "{error}");
}

#[test]
fn documents_that_contradict_are_refused() {
    Archive::oci(|c, _| drop(c["rootfs"]["diff_ids"].as_array_mut().unwrap().pop()))
        .refused("lists 2 layers and its config 1");
    Archive::docker(|_, m| m[0]["Layers"] = json!(["a/layer.tar"]))
        .refused("lists 1 layers and its config 2");
    Archive::oci(|_, m| m["manifests"] = json!([])).refused("in two ways");
    Archive::oci(|_, m| m["mediaType"] = media_type::INDEX.into()).refused("descriptor says");
    Archive::oci(|c, _| c["rootfs"]["type"] = "magic".into()).refused("not \"layers\"");
    Archive::oci(|_, m| {
        m["config"] = json!({"mediaType": "application/x", "digest": m["layers"][0]["digest"], "size": 1})
    })
    .refused("another artifact");
    Archive::docker(|_, m| m[0]["RepoTags"] = json!(["../../etc"])).refused("not an image name");
    Archive::docker(|_, m| m[0]["Layers"] = json!(["a/layer.tar", "../../../etc/passwd"]))
        .refused("it has no");
    Archive::docker(|_, m| *m = json!([])).refused("no image");
    Archive::docker(|_, m| *m = json!({})).refused("cannot be read");
    Archive::new().refused("neither index.json (OCI) nor manifest.json");
}

#[test]
fn indexes_do_not_lead_astray() {
    // deeper than anybody nests
    let nest = |levels: usize| {
        let mut archive = Archive::oci(|_, _| ());
        let top: Value = serde_json::from_slice(&archive.members["index.json"]).unwrap();
        let mut entry = top["manifests"][0].clone();
        for _ in 0..levels {
            let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [entry]});
            entry = archive.typed(media_type::INDEX, documents::to_json(&index));
        }
        let top = json!({"schemaVersion": 2, "manifests": [entry]});
        archive.members.insert("index.json".into(), documents::to_json(&top));
        archive
    };
    nest(2).load(&Space::new()).unwrap();
    nest(6).refused("nested deeper");
    // one manifest, over and over
    let many = |top: &mut Value| top["manifests"] = vec![top["manifests"][0].clone(); 10_001].into();
    let error = Archive::oci_with(|_, _| (), many).load(&Space::new()).unwrap_err().to_string();
    assert!(error.contains("10000 descriptors") || error.contains("are accepted"), "{error}");
    // an index that claims to be itself cannot have the digest that it names
    let own = |top: &mut Value| top["manifests"][0]["digest"] = format!("sha256:{}", "a".repeat(64)).into();
    Archive::oci_with(|_, _| (), own).refused("it has no");
    // huge JSON is not read
    let huge = Archive::oci(|_, _| ()).spoil("index.json", |b| b.resize(5 << 20, b' '));
    huge.refused("are accepted");
    // the wanted platform, or a list of what there is
    let platforms = |names: &[&str]| {
        let mut archive = Archive::oci(|_, _| ());
        let top: Value = serde_json::from_slice(&archive.members["index.json"]).unwrap();
        let entries: Vec<Value> = names
            .iter()
            .map(|name| {
                let mut entry = top["manifests"][0].clone();
                entry["platform"] = json!({"os": "linux", "architecture": name});
                entry
            })
            .collect();
        let index = json!({"schemaVersion": 2, "manifests": entries});
        let entry = archive.typed(media_type::INDEX, documents::to_json(&index));
        let top = json!({"schemaVersion": 2, "manifests": [entry]});
        archive.members.insert("index.json".into(), documents::to_json(&top));
        archive
    };
    let host = Platform::host().architecture;
    assert_eq!(platforms(&["s390x", &host]).load(&Space::new()).unwrap().len(), 1);
    platforms(&["s390x", "riscv64"]).refused("only for linux/s390x, linux/riscv64");
}

#[test]
fn links_in_an_archive_lead_nowhere() {
    let mut tar = tar::Builder::new(Vec::new());
    let honest = Archive::docker(|_, _| ());
    for (name, bytes) in honest.members.iter().filter(|(name, _)| !name.starts_with("b/")) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "b/layer.tar", "/etc/passwd").unwrap();
    let bytes = tar.into_inner().unwrap();
    let space = Space::new();
    let error = space.images.load(LoadInput::Stream(Box::new(io::Cursor::new(bytes))), None).unwrap_err();
    assert!(error.to_string().contains("link to nothing in the archive"), "{error}");
}

#[test]
fn a_loaded_name_says_whose_it_was() {
    let space = Space::new();
    let first = Archive::docker(|_, _| ()).load(&space).unwrap();
    let second = Archive::docker(|c, _| c["author"] = "somebody".into()).load(&space).unwrap();
    assert_eq!(second[0].replaced, [("evil".parse().unwrap(), first[0].id.clone())]);
    assert!(space.images.get(&first[0].id).unwrap().names.is_empty());
}

#[test]
fn what_is_no_file_is_said_to_be_none() {
    let space = Space::new();
    let error = space.images.load(LoadInput::Path("no/such".into()), None).unwrap_err().to_string();
    assert!(error.contains("no/such"), "{error}");
}
