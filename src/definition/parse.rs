//! `manifests/NAME.toml` into a [`Definition`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Compression, Definition, LayerUse, config};
use crate::oci::{Platform, Reference};
use crate::text::{File, Item, Problems, Span, Table, Text, nearest, simple_name};

/// Words of other tools, with ours.
const FOREIGN: [(&str, &str); 9] = [
    ("architectures", "platforms"),
    ("destinations", "also"),
    ("from", "base"),
    ("labels", "config.labels"),
    ("env", "config.env"),
    ("name", "image"),
    ("recipe", "layers"),
    ("steps", "layers"),
    ("user", "config.user"),
];

/// Reads a definition's file; see [`parse`].
pub fn load(path: &Path, problems: &Problems) -> Option<Definition> {
    parse(&File::read(path, problems)?, problems)
}

/// Reads a definition's text; the file's path says where recipes are looked for.
///
/// With problems it is a draft, good for finding more of them and for nothing else.
pub fn parse(file: &Arc<File>, problems: &Problems) -> Option<Definition> {
    // Stands where a name is wrong or missing, in a draft alone.
    let nowhere = || "localhost/nowhere".parse::<Reference>().ok();
    let mut table = Table::read(file, problems);
    let name = name(file, problems);
    let image = table.required_text("image", "\"ghcr.io/me/mine\"");
    let (image, tag) = image.and_then(|text| destination(&table, &text)).unzip();
    let also = also(&mut table, image.as_ref());
    let tags = tags(&mut table, tag.flatten());
    let base = table.required_text("base", "\"quay.io/jupyter/minimal-notebook:ubuntu-24.04\"");
    let base = base.and_then(|text| Some((reference(&table, &text)?, text.span)));
    let platforms = platforms(&mut table);
    let compression = compression(&mut table);
    let recipes = recipes(&mut table, file.path());
    let layers = layers(&mut table);
    let config = table.table("config").map(config::read).unwrap_or_default();
    let annotations = table
        .map("annotations")
        .unwrap_or_default()
        .into_iter()
        .map(|(key, (_, text))| (key, text.value))
        .collect();
    table.finish(&FOREIGN);
    let (base, base_span) = base.or_else(|| Some((nowhere()?, 0..0)))?;
    Some(Definition {
        name,
        file: Arc::clone(file),
        image: image.or_else(nowhere)?,
        also,
        tags,
        base,
        base_span,
        platforms,
        compression,
        recipes,
        layers,
        config,
        annotations,
    })
}

fn name(file: &File, problems: &Problems) -> String {
    let name = file.path().file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if !simple_name(name) {
        let message =
            format!("`{name}` cannot name a definition; use small letters, digits and `-`");
        problems.about(file.path(), message);
    }
    name.to_owned()
}

fn reference(table: &Table<'_>, text: &Text) -> Option<Reference> {
    match text.value.parse::<Reference>() {
        Ok(reference) => Some(reference),
        Err(error) => {
            let (name, rest) = split_name(&text.value);
            let small = name.to_lowercase();
            let message = if small != name && format!("{small}{rest}").parse::<Reference>().is_ok()
            {
                format!("image names have no capitals: `{small}{rest}`")
            } else {
                error.to_string()
            };
            table.wrong(text.span.clone(), message);
            None
        }
    }
}

/// Splits a reference before its tag or digest.
fn split_name(text: &str) -> (&str, &str) {
    let name_end = text.find('@').unwrap_or(text.len());
    let path = text[..name_end].rfind('/').map_or(0, |slash| slash + 1);
    let end = text[path..name_end].find(':').map_or(name_end, |colon| path + colon);
    text.split_at(end)
}

/// Reads a name that is pushed to: without a digest, and its tag apart.
fn destination(table: &Table<'_>, text: &Text) -> Option<(Reference, Option<(String, Span)>)> {
    let reference = reference(table, text)?;
    if reference.digest().is_some() {
        table.wrong(text.span.clone(), "the digest of an image to be built can't be said ahead");
        return None;
    }
    let tag = split_name(&text.value).1.strip_prefix(':');
    Some((reference, tag.map(|tag| (tag.to_owned(), text.span.clone()))))
}

fn also(table: &mut Table<'_>, image: Option<&Reference>) -> Vec<Reference> {
    let mut also: Vec<Reference> = Vec::new();
    for text in table.texts("also").unwrap_or_default() {
        let Some((reference, tag)) = destination(table, &text) else { continue };
        let same = |other: &Reference| other.name() == reference.name();
        if let Some((tag, span)) = tag {
            table.wrong(span, format!("say the tag once for all names: `tags = [\"{tag}\"]`"));
        } else if image.is_some_and(same) || also.iter().any(same) {
            table.wrong(text.span, format!("`{}` is there already", text.value));
        } else {
            also.push(reference);
        }
    }
    also
}

fn tags(table: &mut Table<'_>, of_image: Option<(String, Span)>) -> Vec<String> {
    let Some((items, span)) = table.list("tags") else {
        return vec![of_image.map_or_else(|| "latest".to_owned(), |(tag, _)| tag)];
    };
    if let Some((tag, span)) = of_image {
        table.wrong(span, format!("`tags` says the tags; leave `:{tag}` out here"));
    }
    if items.is_empty() {
        table.wrong(span, "`tags` lists nothing; leave it out for `latest`");
    }
    let mut tags = Vec::new();
    for text in table.texts_of("tags", items) {
        let bytes = text.value.as_bytes();
        let good = bytes.first().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
            && bytes.len() <= 128;
        if !good {
            let message = format!("`{}` is no tag: letters, digits, `.`, `_` and `-`", text.value);
            table.wrong(text.span, message);
        } else if tags.contains(&text.value) {
            table.wrong(text.span, format!("tag `{}` is there already", text.value));
        } else {
            tags.push(text.value);
        }
    }
    tags
}

fn platforms(table: &mut Table<'_>) -> Vec<Platform> {
    if !table.has("platforms") {
        table.list("platforms");
        table.missing("platforms", "[\"linux/amd64\", \"linux/arm64\"]");
        return Vec::new();
    }
    let Some((items, span)) = table.list("platforms") else { return Vec::new() };
    if items.is_empty() {
        table.wrong(span, "`platforms` lists nothing, for instance `[\"linux/amd64\"]`");
    }
    let mut platforms = Vec::new();
    for text in table.texts_of("platforms", items) {
        match text.value.parse::<Platform>() {
            Ok(platform) if platforms.iter().any(|has: &Platform| has.satisfies(&platform)) => {
                table.wrong(text.span, format!("platform `{platform}` is there already"));
            }
            Ok(platform) => {
                let architecture = platform.architecture.as_str();
                if KNOWN_ARCHITECTURES.contains(&architecture) {
                    platforms.push(platform);
                    continue;
                }
                let meant = match nearest(architecture, KNOWN_ARCHITECTURES) {
                    Some(meant) => format!("did you mean `linux/{meant}`?"),
                    None => format!("there are {}", crate::fault::list_of(&KNOWN_ARCHITECTURES)),
                };
                let message = format!("unknown architecture `{architecture}`; {meant}");
                table.wrong(text.span, message);
            }
            Err(error) => table.wrong(text.span, error.to_string()),
        }
    }
    platforms
}

/// Go's names of the architectures that Debian or Ubuntu are made for.
const KNOWN_ARCHITECTURES: [&str; 8] =
    ["386", "amd64", "arm", "arm64", "loong64", "ppc64le", "riscv64", "s390x"];

fn compression(table: &mut Table<'_>) -> Compression {
    let Some(text) = table.text("compression") else { return Compression::default() };
    match text.value.as_str() {
        "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        other => {
            let message = format!("`{other}` is neither `gzip` nor `zstd`");
            table.wrong(text.span, message);
            Compression::default()
        }
    }
}

fn recipes(table: &mut Table<'_>, path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new(""));
    // `a/manifests/../layers` would be right too, but is not what one wants to read.
    let above = match (folder.parent(), folder.file_name()) {
        (Some(above), Some(_)) => above.to_owned(),
        _ => folder.join(".."),
    };
    let mut folders = vec![above.join("layers"), folder.join("layers")];
    for text in table.texts("recipes").unwrap_or_default() {
        let recipes = folder.join(&text.value);
        if recipes.is_dir() {
            folders.push(recipes);
        } else {
            table.wrong(text.span, format!("there is no folder `{}`", recipes.display()));
        }
    }
    folders.dedup();
    folders
}

fn layers(table: &mut Table<'_>) -> Vec<LayerUse> {
    if !table.has("layers") {
        table.list("layers");
        table.missing("layers", "[\"opt-share\", \"r\"]");
        return Vec::new();
    }
    let Some((items, _)) = table.list("layers") else { return Vec::new() };
    let mut layers: Vec<LayerUse> = Vec::new();
    for item in items {
        let layer = match item {
            Item::Text(recipe) => LayerUse { recipe, args: BTreeMap::new(), without: Vec::new() },
            Item::Table(entry) => match layer(entry) {
                Some(layer) => layer,
                None => continue,
            },
            other => {
                table.mistyped("an item of layers", "text or a table with `recipe`", &other);
                continue;
            }
        };
        let name = &layer.recipe.value;
        let first = layers.iter().find(|other| other.recipe.value == *name);
        if !simple_name(name) {
            let message = if name.contains('/') {
                format!(
                    "`{name}` is a path; name the recipe alone, and its folder's folder in \
                     `recipes = [\"…\"]`"
                )
            } else {
                format!("`{name}` cannot name a recipe; use small letters, digits and `-`")
            };
            table.wrong(layer.recipe.span.clone(), message);
        } else if let Some(first) = first {
            let line = table.file().line(&first.recipe.span);
            let message = format!("layer `{name}` is there already, in line {line}");
            table.wrong(layer.recipe.span.clone(), message);
        } else {
            layers.push(layer);
        }
    }
    layers
}

fn layer(mut entry: Table<'_>) -> Option<LayerUse> {
    let recipe = entry.required_text("recipe", "\"ide\"");
    let args = entry.map("args").unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut without = Vec::new();
    for step in entry.texts("without").unwrap_or_default() {
        if seen.insert(step.value.clone()) {
            without.push(step);
        } else {
            entry.wrong(step.span, format!("step `{}` is there already", step.value));
        }
    }
    entry.finish(&[("exclude", "without"), ("layer", "recipe"), ("name", "recipe")]);
    Some(LayerUse { recipe: recipe?, args, without })
}

/// Used by [`super::config`], which has the same words for it.
pub(super) fn texts_of(map: BTreeMap<String, (Span, Text)>) -> BTreeMap<String, String> {
    map.into_iter().map(|(key, (_, text))| (key, text.value)).collect()
}
