//! What a comparison found, as it is printed, drawn and encoded: `schemas/diff.schema.json` has its
//! JSON form.

use serde::Serialize;
use serde_json::Value;

use super::cause::Cause;
use crate::oci::Digest;

/// The version of the report's form.
pub const SCHEMA: u32 = 1;

/// How two things compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The same digest.
    Identical,
    /// Other documents or another compression round the same layers' content.
    Equivalent,
    /// Other content.
    Differs,
}

/// Something that both sides may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair<T> {
    /// The first's.
    pub a: Option<T>,
    /// The second's.
    pub b: Option<T>,
}

impl<T: PartialEq> Pair<T> {
    /// Tells whether both have the same.
    pub fn is_same(&self) -> bool {
        self.a == self.b
    }
}

/// An image that was compared.
#[derive(Clone, Debug, Serialize)]
pub struct Subject {
    /// What it was called by.
    pub name: String,
    /// The digest of its index or manifest.
    pub digest: Digest,
    /// What that is.
    pub media_type: String,
}

/// Two images, compared.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The version of this form.
    pub schema: u32,
    /// The first image.
    pub a: Subject,
    /// The second.
    pub b: Subject,
    /// The worst of all platforms.
    pub verdict: Verdict,
    /// Differences of the documents above the platforms.
    pub fields: Vec<FieldChange>,
    /// One entry a platform of either.
    pub platforms: Vec<PlatformComparison>,
}

/// A member of a document that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldChange {
    /// `index`, `manifest` or `config`.
    pub document: &'static str,
    /// Where in it: `config.Env.PATH`.
    pub field: String,
    /// The first's value; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<Value>,
    /// The second's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<Value>,
}

/// One platform of two images.
#[derive(Clone, Debug, Serialize)]
pub struct PlatformComparison {
    /// Which.
    pub platform: String,
    /// How it compares; one that a side lacks differs.
    pub verdict: Verdict,
    /// The manifests.
    pub manifest: Pair<Digest>,
    /// The configurations.
    pub config: Pair<Digest>,
    /// Differences of manifest and configuration, without the lists of layers.
    pub fields: Vec<FieldChange>,
    /// Packages of other versions, of all layers.
    pub packages: Vec<PackageChange>,
    /// The layers, the base first.
    pub layers: Vec<LayerComparison>,
}

/// A package that one side has in another version, or not at all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PackageChange {
    /// `deb`, `conda`, `pip`, `r` or `npm`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// The first's version.
    pub a: Option<String>,
    /// The second's.
    pub b: Option<String>,
}

impl std::fmt::Display for PackageChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PackageChange { kind, name, .. } = self;
        match (&self.a, &self.b) {
            (Some(a), Some(b)) => write!(f, "{kind} {name} {a} -> {b}"),
            (Some(a), None) => write!(f, "{kind} {name} {a} removed"),
            (None, Some(b)) => write!(f, "{kind} {name} {b} added"),
            (None, None) => write!(f, "{kind} {name}"),
        }
    }
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerSide {
    /// Its place, the base's first layer being 0.
    pub position: usize,
    /// The blob.
    pub digest: Digest,
    /// The tar.
    pub diff_id: Option<Digest>,
    /// Bytes, compressed.
    pub size: u64,
    /// What made it.
    pub made_by: String,
}

impl LayerSide {
    /// Returns what made it, of our own layers the recipe's name alone: which state of the recipe it
    /// was, follows.
    pub fn maker(&self) -> &str {
        let own = self.made_by.strip_prefix("ocibuild: ");
        own.and_then(|own| own.split_once(" (recipe ")).map_or(&self.made_by, |(name, _)| name)
    }
}

/// Two layers that stand for each other, or one that stands alone.
#[derive(Clone, Debug, Serialize)]
pub struct LayerComparison {
    /// What made it; of our own layers, the recipe.
    pub made_by: String,
    /// How they compare.
    pub verdict: Verdict,
    /// Both layers.
    pub layers: Pair<LayerSide>,
    /// How many paths differ.
    pub paths: usize,
    /// How many of them have no known cause.
    pub unexplained: usize,
    /// The differences by what caused them, the inputs first.
    pub groups: Vec<Group>,
    /// Every path that differs.
    pub differences: Vec<Difference>,
}

/// Differences with one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// What kind of cause.
    pub cause: Cause,
    /// The cause in words: `pip platformdirs 4.14.7 -> 4.14.8`.
    pub text: String,
    /// The rule of normalisation that would have covered it.
    pub rule: Option<&'static str>,
    /// What would cure it.
    pub cure: Option<String>,
    /// The steps that wrote them, where the build noted it.
    pub steps: Vec<String>,
    /// How many paths.
    pub paths: usize,
    /// What they have in common, as `/opt/venv/lib/*`.
    pub place: String,
}

impl Group {
    /// Says which steps wrote the paths, with a space at the end; nothing where nobody noted it.
    pub fn by_steps(&self) -> String {
        match self.steps.as_slice() {
            [] => String::new(),
            [step] => format!("by step {step} "),
            [first, second] => format!("by steps {first} and {second} "),
            [first, rest @ ..] => format!("by step {first} and {} others ", rest.len()),
        }
    }
}

/// How a path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The second has it.
    Added,
    /// The first has it.
    Removed,
    /// Both have it.
    Changed,
}

/// A path that differs.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The path from the root, lossily.
    pub path: String,
    /// How.
    pub change: Change,
    /// In what: `type`, `mode`, `owner`, `mtime`, `link`, `device`, `capability`, `content`.
    pub fields: Vec<&'static str>,
    /// The first's.
    pub a: Option<Shown>,
    /// The second's.
    pub b: Option<Shown>,
    /// The package that it belongs to.
    pub package: Option<String>,
    /// The step that wrote the second's, where the build noted it.
    pub step: Option<String>,
    /// What kind of cause.
    pub cause: Cause,
    /// The cause in words.
    pub text: String,
    /// Whether the cause was proven rather than guessed by the look of the difference.
    pub certain: bool,
    /// The rule of normalisation that covers it.
    pub rule: Option<&'static str>,
    /// What would cure it.
    pub cure: Option<String>,
    /// What the contents differ in.
    pub content: Option<Explanation>,
}

/// An entry as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// `file`, `folder`, `symlink`, `hard-link`, `character`, `block`, `fifo`, `whiteout`, `opaque`.
    pub kind: &'static str,
    /// Permissions, in octal digits.
    pub mode: String,
    /// Owner and group.
    pub owner: String,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Where a link points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Major and minor number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// `security.capability`, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// The digest of a file's content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What two contents differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `text`, `elf`, `zip`, `tar`, `ar`, `gzip`, `zstd`, `pyc`, `sqlite`, `r-database`, `binary`.
    pub kind: &'static str,
    /// The difference in a sentence.
    pub summary: String,
    /// A unified diff, where both are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// Members, sections and fields that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// A part of a file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// How it differs.
    pub what: String,
    /// What its own content differs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Explanation>,
}
