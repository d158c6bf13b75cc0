//! The values that a template works on: JSON with docker's types put back. Pure.
//!
//! A JSON object is a structure or a map in docker, and `null` a pointer, a list or a map that is not there. A template
//! prints them differently and answers differently when it asks for a field that is missing. The names of the fields that hold
//! maps and lists are few, so they are listed here.

use serde_json::Value;

/// The names of fields with maps from names to texts.
const TEXT_MAPS: [&str; 14] = [
    "Labels",
    "Options",
    "Sysctls",
    "Annotations",
    "Tmpfs",
    "Data",
    "DriverOpts",
    "StorageOpt",
    "Attributes",
    "LabelMap",
    "AuxiliaryAddresses",
    "Details",
    "labels",
    "annotations",
];
/// The names of fields with maps from names to other things.
const MAPS: [&str; 8] = [
    "Ports",
    "PortBindings",
    "Networks",
    "Volumes",
    "ExposedPorts",
    "Containers",
    "IndexConfigs",
    "Runtimes",
];
/// The names of fields with lists, which may be `null`.
const LISTS: [&str; 38] = [
    "CapAdd",
    "CapDrop",
    "Cmd",
    "Entrypoint",
    "Env",
    "Args",
    "OnBuild",
    "Binds",
    "VolumesFrom",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "SecurityOpt",
    "Devices",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Ulimits",
    "Aliases",
    "DNSNames",
    "ExecIDs",
    "RepoTags",
    "RepoDigests",
    "Mounts",
    "MaskedPaths",
    "ReadonlyPaths",
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
    "Shell",
    "Log",
    "Layers",
    "Warnings",
    "SecondaryIPAddresses",
];

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Val {
    /// Go's untyped nil, or a pointer to nothing.
    Nil,
    /// What a map gives for a key that it does not have.
    NoValue,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    List(Vec<Val>),
    NilList,
    /// In the order of the keys; whether the values are texts.
    Map(Vec<(String, Val)>, bool),
    NilMap(bool),
    /// In the order of its fields.
    Struct(Vec<(String, Val)>),
    /// Stands for a line while the head of a table is made.
    Head,
}

impl Val {
    /// Makes a value of what describes one thing.
    pub(super) fn of(value: &Value) -> Self {
        Self::under(value, "", "")
    }

    /// Makes a line of a list, whose fields docker sorts.
    pub(super) fn row(value: &Value) -> Self {
        match Self::of(value) {
            Self::Struct(mut fields) => {
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                Self::Struct(fields)
            }
            other => other,
        }
    }

    fn under(value: &Value, key: &str, parent: &str) -> Self {
        let text_map = TEXT_MAPS.contains(&key) || (key == "Config" && parent == "LogConfig");
        let map = text_map || MAPS.contains(&key);
        match value {
            Value::Null if map => Self::NilMap(text_map),
            Value::Null if LISTS.contains(&key) => Self::NilList,
            Value::Null => Self::Nil,
            Value::Bool(yes) => Self::Bool(*yes),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(n), _) => Self::Int(n.into()),
                (_, Some(n)) => Self::Int(n.into()),
                _ => Self::Float(number.as_f64().unwrap_or(0.0)),
            },
            Value::String(text) => Self::Str(text.clone()),
            Value::Array(items) => Self::List(items.iter().map(|item| Self::under(item, "", key)).collect()),
            Value::Object(fields) if map => {
                let mut pairs: Vec<_> =
                    fields.iter().map(|(name, v)| (name.clone(), Self::in_map(v, key))).collect();
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                Self::Map(pairs, text_map)
            }
            Value::Object(fields) => {
                let field = |(name, v): (&String, &Value)| (name.clone(), Self::under(v, name, key));
                let mut out: Vec<_> = fields.iter().map(field).collect();
                if parent == "Mounts" && !fields.contains_key("Name") {
                    out.insert(1.min(out.len()), ("Name".into(), Self::Str(String::new())));
                    out.insert(4.min(out.len()), ("Driver".into(), Self::Str(String::new())));
                }
                Self::Struct(out)
            }
        }
    }

    fn in_map(value: &Value, key: &str) -> Self {
        match value {
            Value::Null if matches!(key, "Ports" | "PortBindings") => Self::NilList,
            other => Self::under(other, "", key),
        }
    }

    /// Makes the value that `index` gives for a key that this map lacks.
    pub(super) fn zero(&self) -> Self {
        match self {
            Self::Map(_, true) | Self::NilMap(true) => Self::Str(String::new()),
            Self::Map(pairs, _) if pairs.iter().any(|(_, v)| matches!(v, Self::Struct(_))) => Self::Nil,
            // of ports
            _ => Self::NilList,
        }
    }

    /// Go's name of the type.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil | Self::NoValue => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Str(_) => "string",
            Self::List(_) | Self::NilList => "[]interface {}",
            Self::Map(..) | Self::NilMap(_) | Self::Struct(_) | Self::Head => "map[string]interface {}",
        }
    }

    /// Says whether `if` takes it for true.
    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Nil | Self::NoValue | Self::NilList | Self::NilMap(_) => false,
            Self::Bool(yes) => *yes,
            Self::Int(n) => *n != 0,
            Self::Float(n) => *n != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(pairs, _) => !pairs.is_empty(),
            Self::Struct(_) | Self::Head => true,
        }
    }

    /// Prints as Go does: `[a b]` for a list, `map[a:1]` for a map, `{1 2}` for a structure.
    pub(super) fn show(&self) -> String {
        let all = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(" ");
        match self {
            Self::Nil => "<nil>".into(),
            Self::NoValue => "<no value>".into(),
            Self::Bool(yes) => yes.to_string(),
            Self::Int(n) => n.to_string(),
            Self::Float(n) => n.to_string(),
            Self::Str(text) => text.clone(),
            Self::List(items) => format!("[{}]", all(&mut items.iter().map(Self::show))),
            Self::NilList => "[]".into(),
            Self::Map(pairs, _) => {
                format!("map[{}]", all(&mut pairs.iter().map(|(k, v)| format!("{k}:{}", v.show()))))
            }
            Self::NilMap(_) | Self::Head => "map[]".into(),
            Self::Struct(fields) => {
                let fields = fields.iter().filter(|(name, _)| name != "LabelMap");
                format!("{{{}}}", all(&mut fields.map(|(_, v)| v.show())))
            }
        }
    }

    /// Goes back to JSON.
    pub(super) fn json(&self) -> Value {
        let object = |fields: &mut dyn Iterator<Item = &(String, Self)>| {
            Value::Object(fields.map(|(k, v)| (k.clone(), v.json())).collect())
        };
        match self {
            Self::Nil | Self::NoValue | Self::NilList | Self::NilMap(_) | Self::Head => Value::Null,
            Self::Bool(yes) => (*yes).into(),
            Self::Int(n) => i64::try_from(*n)
                .map(Value::from)
                .unwrap_or_else(|_| u64::try_from(*n).map_or(Value::Null, Value::from)),
            Self::Float(n) => (*n).into(),
            Self::Str(text) => text.as_str().into(),
            Self::List(items) => items.iter().map(Self::json).collect::<Vec<_>>().into(),
            Self::Map(pairs, _) => object(&mut pairs.iter()),
            Self::Struct(fields) => object(&mut shown(fields)),
        }
    }
}

/// The fields of a structure without what only rbuild asks it for, and without what docker leaves out when there is none.
fn shown(fields: &[(String, Val)]) -> impl Iterator<Item = &(String, Val)> {
    let mount = fields.iter().any(|(name, _)| name == "Destination");
    fields.iter().filter(move |(name, value)| {
        let left_out = name == "Health" && *value == Val::Nil
            || mount && matches!(name.as_str(), "Name" | "Driver") && *value == Val::Str(String::new());
        name != "LabelMap" && !left_out
    })
}

/// Gives what a template gets for a field that docker knows and its JSON leaves out when there is nothing in it. What a
/// structure is, one of its other fields tells.
pub(super) fn left_out(value: &Val, name: &str) -> Option<Val> {
    let Val::Struct(fields) = value else { return None };
    let beside = |other: &str| fields.iter().any(|(known, _)| known == other);
    let no_text = || Val::Str(String::new());
    Some(match name {
        "Health" if beside("ExitCode") => Val::Nil,
        "Healthcheck" | "StopTimeout" if beside("WorkingDir") => Val::Nil,
        "StopSignal" | "MacAddress" | "Hostname" | "Domainname" if beside("WorkingDir") => no_text(),
        "Shell" if beside("WorkingDir") => Val::NilList,
        "ExposedPorts" if beside("WorkingDir") => Val::NilMap(false),
        "Variant" | "OsVersion" if beside("RootFS") => no_text(),
        "Manifests" if beside("RootFS") => Val::NilList,
        "Sysctls" | "Tmpfs" | "Annotations" | "StorageOpt" if beside("Binds") => Val::NilMap(true),
        "Mounts" if beside("Binds") => Val::NilList,
        "Init" if beside("Binds") => Val::Nil,
        "SizeRw" | "SizeRootFs" | "ImageManifestDescriptor" if beside("RestartCount") => Val::Nil,
        "Status" | "UsageData" if beside("Mountpoint") => Val::Nil,
        "Status" | "ID" | "From" if beside("Actor") => no_text(),
        "AuxiliaryAddresses" if beside("Subnet") => Val::NilMap(true),
        "IPRange" | "Gateway" if beside("Subnet") => no_text(),
        _ => return None,
    })
}

/// The pointers among these, which docker's JSON does not have when they lead nowhere.
pub(super) const OMITTED: [&str; 3] = ["Health", "Healthcheck", "StopTimeout"];
