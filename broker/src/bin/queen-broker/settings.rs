//! The settings of `queen-broker serve`: one table, read from flags, the environment and a file.
//!
//! A flag wins over the environment, the environment over the file, the file over the default. A list is taken whole from
//! the first place that has it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Arg, ArgAction, ArgMatches};

/// One setting. Its name with dashes is the flag, with underscores the key in the file, in capitals the variable.
pub struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    /// What stands for the value in help and documentation.
    pub value: &'static str,
    /// Empty: there is none.
    pub default: &'static str,
    pub help: &'static str,
}

/// What a setting takes, and how the file writes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Number,
    /// Several texts: the flag may be repeated, the variable separates by commas, the file has an array.
    List,
    /// Several JSON texts, as a list; but commas are part of them, so the variable holds one text.
    Json,
    /// True or false; the flag alone means true.
    Switch,
}

/// All of them, in the order of help and documentation.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        kind: Kind::List,
        value: "ADDRESS",
        default: "127.0.0.1:6632",
        help: "Where to listen: `host:port`, or `unix:/path` for a socket file. Port 0 picks a free one. The first lines \
               printed, one for each address, tell what it came to be. An address that other machines can reach needs a \
               token or a JWT secret.",
    },
    Setting {
        name: "socket-mode",
        kind: Kind::Text,
        value: "OCTAL",
        default: "600",
        help: "The permissions of socket files: 600 lets in your own user, 660 the group too, 666 everyone on the machine.",
    },
    Setting {
        name: "data",
        kind: Kind::Text,
        value: "FILE",
        default: "",
        help: "The store, an SQLite file that is created when it is missing; its folder must exist. Without it everything \
               is in memory and gone at the end.",
    },
    Setting {
        name: "durability",
        kind: Kind::Text,
        value: "LEVEL",
        default: "full",
        help: "What an answered push survives: `full` a power failure, `normal` a crash of the process, `memory` the same, \
               but a power failure may cost the whole store.",
    },
    Setting {
        name: "token",
        kind: Kind::List,
        value: "SECRET",
        default: "",
        help: "A secret that clients send as `Authorization: Bearer SECRET`; it opens everything. Health and metrics need \
               none. Other users of the machine can read command lines: better use a file.",
    },
    Setting {
        name: "token-file",
        kind: Kind::Text,
        value: "FILE",
        default: "",
        help: "A file of such secrets, one a line.",
    },
    Setting {
        name: "jwt-secret",
        kind: Kind::Text,
        value: "SECRET",
        default: "",
        help: "The key of JSON Web Tokens (HS256), which clients send in the same way. Their `role` says what they open.",
    },
    Setting {
        name: "jwt-secret-file",
        kind: Kind::Text,
        value: "FILE",
        default: "",
        help: "A file with that key; a line end behind it does not count.",
    },
    Setting {
        name: "default-subscription",
        kind: Kind::Text,
        value: "START",
        default: "new",
        help: "Where a consumer group starts that does not say so: `new` with what is pushed from then on, `all` at the \
               oldest message.",
    },
    Setting {
        name: "max-body-bytes",
        kind: Kind::Number,
        value: "BYTES",
        default: "67108864",
        help: "The largest request body; a larger one is answered with 413.",
    },
    Setting {
        name: "shutdown-timeout-millis",
        kind: Kind::Number,
        value: "MILLIS",
        default: "10000",
        help: "How long the end waits, after SIGTERM or SIGINT, for requests that are under way.",
    },
    Setting {
        name: "testing",
        kind: Kind::Switch,
        value: "BOOL",
        default: "false",
        help: "Let clients steer the broker for the sake of a test: whoever reaches it can make it fail. Never where the \
               messages matter.",
    },
    Setting {
        name: "fault",
        kind: Kind::Json,
        value: "JSON",
        default: "",
        help: "What goes wrong from the start, as a JSON object or a list of them (docs/TESTING.md), such as \
               `{\"route\": \"push\", \"times\": 3, \"action\": \"cutAfterCommit\"}`. Any of them turns `--testing` on.",
    },
];

/// The settings that are never shown.
const SECRETS: [&str; 2] = ["token", "jwt-secret"];

/// Where a value came from, as an error names it.
#[derive(Clone)]
enum Source {
    Flag,
    Environment,
    File(PathBuf),
    Default,
}

struct Given {
    values: Vec<OsString>,
    source: Source,
}

/// The settings in effect.
pub struct Settings {
    given: HashMap<&'static str, Given>,
    pub print: bool,
}

impl Setting {
    fn variable(&self) -> String {
        format!(
            "QUEEN_BROKER_{}",
            self.name.replace('-', "_").to_uppercase()
        )
    }

    fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// The flag. The default stays out of clap, which could not tell it from a flag that was given.
    fn flag(&self) -> Arg {
        let mut help = format!("{}\n[env: {}]", self.help, self.variable());
        if !self.default.is_empty() {
            help.push_str(&format!(" [default: {}]", self.default));
        }
        let flag = Arg::new(self.name)
            .long(self.name)
            .help(help)
            .value_name(self.value)
            .value_parser(clap::value_parser!(OsString));
        match self.kind {
            Kind::Text | Kind::Number => flag,
            Kind::List | Kind::Json => flag.action(ArgAction::Append),
            Kind::Switch => flag
                .num_args(0..=1)
                .default_missing_value("true")
                .require_equals(true),
        }
    }

    fn split(&self, text: OsString) -> Vec<OsString> {
        match (self.kind, text.to_str()) {
            (Kind::List, Some(text)) => text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(Into::into)
                .collect(),
            _ => vec![text],
        }
    }

    fn in_file(&self, value: toml::Value) -> Result<Vec<OsString>, String> {
        let one = |value: toml::Value| match (self.kind, value) {
            (Kind::Text | Kind::List | Kind::Json, toml::Value::String(text)) => Ok(text.into()),
            (Kind::Number, toml::Value::Integer(number)) => Ok(number.to_string().into()),
            (Kind::Switch, toml::Value::Boolean(on)) => Ok(on.to_string().into()),
            (kind, value) => {
                let wanted = match kind {
                    Kind::Text => "a text in quotes",
                    Kind::Number => "a number",
                    Kind::List | Kind::Json => "an array of texts",
                    Kind::Switch => "true or false",
                };
                Err(format!(
                    "{} must be {wanted}, not {}",
                    self.key(),
                    value.type_str()
                ))
            }
        };
        match (self.kind, value) {
            (Kind::List | Kind::Json, toml::Value::Array(values)) => {
                values.into_iter().map(one).collect()
            }
            (_, value) => Ok(vec![one(value)?]),
        }
    }
}

impl Source {
    fn name(&self, setting: &Setting) -> String {
        match self {
            Source::Flag => format!("--{}", setting.name),
            Source::Environment => setting.variable(),
            Source::File(path) => format!("{}: {}", path.display(), setting.key()),
            Source::Default => format!("default of --{}", setting.name),
        }
    }
}

/// Adds the flags to a command.
pub fn flags(command: clap::Command) -> clap::Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help(
            "A TOML file of settings: their names with underscores, as in `max_body_bytes = 1000000`. Flags and \
             environment win over it; a key that is not known is an error.\n[env: QUEEN_BROKER_CONFIG]",
        );
    let print = Arg::new("print-config")
        .long("print-config")
        .action(ArgAction::SetTrue)
        .help("Print the settings in effect as such a file, without the secrets, and end.");
    let command = command.arg(config).arg(print);
    SETTINGS
        .iter()
        .fold(command, |command, setting| command.arg(setting.flag()))
}

impl Settings {
    /// Takes each setting from the first place that has it.
    pub fn read(flags: &ArgMatches) -> Result<Settings, String> {
        let config = flags.get_one::<PathBuf>("config").cloned();
        let config = config.or_else(|| std::env::var_os("QUEEN_BROKER_CONFIG").map(PathBuf::from));
        let mut file = match &config {
            Some(path) => read_file(path)?,
            None => HashMap::new(),
        };
        let mut given = HashMap::new();
        for setting in SETTINGS {
            let from_flag = flags.get_many::<OsString>(setting.name);
            let in_file = file.remove(setting.name);
            let found = if let Some(values) = from_flag {
                Given {
                    values: values.cloned().collect(),
                    source: Source::Flag,
                }
            } else if let Some(value) = std::env::var_os(setting.variable()) {
                Given {
                    values: setting.split(value),
                    source: Source::Environment,
                }
            } else if let (Some(values), Some(path)) = (in_file, config.clone()) {
                Given {
                    values,
                    source: Source::File(path),
                }
            } else {
                let default = Some(setting.default).filter(|text| !text.is_empty());
                Given {
                    values: default.into_iter().map(Into::into).collect(),
                    source: Source::Default,
                }
            };
            if found.values.iter().any(|value| value.is_empty()) {
                return Err(format!("{} is empty", found.source.name(setting)));
            }
            given.insert(setting.name, found);
        }
        let print = flags.get_flag("print-config");
        Ok(Settings { given, print })
    }

    /// The values of a setting, and how to name their source.
    fn get(&self, name: &str) -> (&[OsString], String) {
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        match (setting, self.given.get(name)) {
            (Some(setting), Some(given)) => (&given.values, given.source.name(setting)),
            _ => (&[], name.to_owned()),
        }
    }

    /// Every value of a setting, read; an error names the source and what is wrong.
    pub fn all<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<Vec<T>, String> {
        let (values, source) = self.get(name);
        let read = |value: &OsString| {
            let text = value
                .to_str()
                .ok_or_else(|| format!("{source}: {value:?} is not UTF-8"))?;
            text.parse().map_err(|error| match SECRETS.contains(&name) {
                true => format!("{source}: {error}"),
                false => format!("{source} {text:?}: {error}"),
            })
        };
        values.iter().map(read).collect()
    }

    /// The value of a setting, if it has one.
    pub fn maybe<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<Option<T>, String> {
        Ok(self.all(name)?.pop())
    }

    /// The value of a setting with a default.
    pub fn one<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<T, String> {
        self.maybe(name)?
            .ok_or_else(|| format!("{name} is missing"))
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).0.first().map(PathBuf::from)
    }

    /// The text of the file that a setting names, with the name of that file.
    pub fn contents(&self, name: &str) -> Result<Option<(PathBuf, String)>, String> {
        let Some(path) = self.path(name) else {
            return Ok(None);
        };
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some((path, text))),
            Err(error) => Err(format!(
                "{}: cannot read {}: {error}",
                self.get(name).1,
                path.display()
            )),
        }
    }

    /// The settings as a file, each with where it came from.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for setting in SETTINGS {
            let Some(given) = self.given.get(setting.name) else {
                continue;
            };
            let secret = SECRETS.contains(&setting.name);
            let mut values = given
                .values
                .iter()
                .map(|value| literal(setting, value, secret));
            let source = given.source.name(setting);
            let line = match setting.kind {
                Kind::List | Kind::Json => {
                    Some(format!("[{}]", values.collect::<Vec<_>>().join(", ")))
                }
                Kind::Text | Kind::Number | Kind::Switch => values.next(),
            };
            let source = match given.source {
                Source::Default => "default".to_owned(),
                _ => source,
            };
            out.push_str(&match line {
                Some(value) => format!("{} = {value} # {source}\n", setting.key()),
                None => format!("# {} is not set\n", setting.key()),
            });
        }
        out
    }
}

/// A value in the notation of the file.
fn literal(setting: &Setting, value: &OsStr, secret: bool) -> String {
    let text = value.to_string_lossy();
    if secret {
        "\"***\"".into()
    } else if matches!(setting.kind, Kind::Number | Kind::Switch) {
        text.into_owned()
    } else {
        toml::Value::String(text.into_owned()).to_string()
    }
}

/// The values of a file by the names of their settings. Each key that is none is named.
fn read_file(path: &Path) -> Result<HashMap<&'static str, Vec<OsString>>, String> {
    let name = path.display();
    let text =
        fs::read_to_string(path).map_err(|e| format!("cannot read the settings in {name}: {e}"))?;
    // The line itself is not shown: it may hold a secret.
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        let before = e.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.matches('\n').count() + 1);
        format!("{name}: line {line}: {}", e.message())
    })?;
    let mut values = HashMap::new();
    let mut unknown = Vec::new();
    for (key, value) in table {
        match SETTINGS.iter().find(|setting| setting.key() == key) {
            Some(setting) => {
                let value = setting.in_file(value).map_err(|e| format!("{name}: {e}"))?;
                values.insert(setting.name, value);
            }
            None => unknown.push(key),
        }
    }
    if unknown.is_empty() {
        return Ok(values);
    }
    let known: Vec<String> = SETTINGS.iter().map(Setting::key).collect();
    Err(format!(
        "{name}: unknown: {}; known: {}",
        unknown.join(", "),
        known.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- settings: written by `make docs` -->\n";
    const END: &str = "<!-- end of the settings -->\n";

    /// The table in `docs/BROKER.md` is this one.
    #[test]
    fn the_settings_are_documented() {
        let mut table = String::from(
            "| flag of `serve` | in the file | in the environment | default | |\n|---|---|---|---|---|\n",
        );
        for setting in SETTINGS {
            let value = match setting.kind {
                Kind::Switch => String::new(),
                Kind::Text | Kind::Number | Kind::List | Kind::Json => {
                    format!(" {}", setting.value)
                }
            };
            let many = match setting.kind {
                Kind::List | Kind::Json => " Several are allowed.",
                Kind::Text | Kind::Number | Kind::Switch => "",
            };
            let default = match setting.default {
                "" => String::new(),
                text => format!("`{text}`"),
            };
            table.push_str(&format!(
                "| `--{}{value}` | `{}` | `{}` | {default} | {}{many} |\n",
                setting.name,
                setting.key(),
                setting.variable(),
                setting.help
            ));
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/BROKER.md");
        let text = fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap();
        let (found, after) = rest.split_once(END).unwrap();
        if std::env::var_os("QUEEN_WRITE_DOCS").is_some() {
            fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        } else {
            assert_eq!(found, table, "docs/BROKER.md is out of date: make docs");
        }
    }

    #[test]
    fn names_are_unique_and_defaults_can_be_read() {
        for (n, setting) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..n].iter().all(|other| other.name != setting.name));
        }
        flags(clap::Command::new("serve")).debug_assert();
    }
}
