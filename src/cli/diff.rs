//! `ocibuild diff`: what two images differ in, and why.

use std::path::PathBuf;
use std::process::ExitCode;

use ocibuild::audit::{self, Cause, Comparison, LayerComparison, Verdict};
use ocibuild::disk;
use ocibuild::oci::Platform;
use ocibuild::ops::{self, ImageName};

use super::context::Context;
use super::{Outcome, render};

/// The most lines of a list that are printed; `--all`, `--json` and `--html` have the rest.
const MOST_LINES: usize = 20;

/// Compare two images: documents, packages, layers, files, and what made them differ
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild diff ghcr.io/rocker-org/ml:4.4 ghcr.io/rocker-org/ml:4.5
  ocibuild diff ghcr.io/rocker-org/ml@sha256:… localhost/ml --platform linux/amd64
  ocibuild diff ./layout oci-archive:other.tar --html differences.html

An image is a name (in the store, else in its registry), a digest in the store, or a layout: a path
that begins with `.` or `/`, `oci:FOLDER[:NAME]`, `oci-archive:FILE[:NAME]`. Layers of one content are
not read. The exit code is 0 for one digest and 1 for any difference.")]
pub(crate) struct Args {
    /// The first image
    #[arg(value_name = "A")]
    a: ImageName,
    /// The second
    #[arg(value_name = "B")]
    b: ImageName,
    /// Compare this platform only
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    credentials: super::push::Credentials,
}

/// How a comparison is shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Shown {
    /// Print every line
    #[arg(long)]
    pub(crate) all: bool,
    /// Write a page with all differences to a file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Shown {
    /// Writes the page that was asked for, if one was.
    pub(crate) fn write_page(
        &self,
        comparison: Option<&Comparison>,
        context: &Context,
    ) -> Result<(), ops::Error> {
        let Some(path) = &self.html else { return Ok(()) };
        match comparison {
            Some(comparison) => {
                disk::write_whole(&context.absolute(path), audit::page(comparison).as_bytes())?;
            }
            None => context.note("nothing differs that a page could show: none was written"),
        }
        Ok(())
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let named = |name: &ImageName| name.clone().from_folder(&context.folder);
    let options = ops::DiffOptions {
        a: named(&args.a),
        b: named(&args.b),
        platform: args.platform.clone(),
        written: None,
        access: args.credentials.access(context)?,
    };
    let comparison = ops::diff(&options, &context.ops())?;
    args.shown.write_page(Some(&comparison), context)?;
    render::result(&comparison, context.json, |comparison| text(comparison, args.shown.all))?;
    Ok(match comparison.verdict {
        Verdict::Identical => ExitCode::SUCCESS,
        _ => ExitCode::from(1),
    })
}

/// Puts a comparison into lines, causes first.
pub(crate) fn text(comparison: &Comparison, all: bool) -> String {
    let Comparison { a, b, verdict, .. } = comparison;
    let word = match verdict {
        Verdict::Identical => return format!("IDENTICAL  {}\n", a.digest),
        Verdict::Equivalent => "EQUIVALENT",
        Verdict::Differs => "DIFFERS",
    };
    let mut text = format!("{word}  {} {}\n", a.name, a.digest);
    text.push_str(&format!("{}  {} {}\n", " ".repeat(word.len()), b.name, b.digest));
    fields(&mut text, &comparison.fields, all);
    for platform in &comparison.platforms {
        let equal =
            platform.layers.iter().filter(|layer| layer.verdict == Verdict::Identical).count();
        let what = match (&platform.manifest.a, &platform.manifest.b) {
            (Some(_), None) => "only in the first".to_owned(),
            (None, Some(_)) => "only in the second".to_owned(),
            _ if platform.verdict == Verdict::Identical => "identical".to_owned(),
            _ => format!("{equal} of {} layers identical", platform.layers.len()),
        };
        text.push_str(&format!("{}: {what}\n", platform.platform));
        fields(&mut text, &platform.fields, all);
        some(&mut text, &platform.packages, all, |package| format!("  package {package}\n"));
        for layer in &platform.layers {
            if layer.verdict != Verdict::Identical {
                layer_text(&mut text, layer, all);
            }
        }
    }
    text
}

fn fields(text: &mut String, fields: &[audit::FieldChange], all: bool) {
    let shown = |value: &Option<serde_json::Value>| match value {
        None => "none".to_owned(),
        Some(serde_json::Value::String(text)) => shorten(text, all),
        Some(value) => shorten(&value.to_string(), all),
    };
    some(text, fields, all, |change| {
        let (a, b) = (shown(&change.a), shown(&change.b));
        format!("  {} {}: {a} -> {b}\n", change.document, change.field)
    });
}

fn shorten(text: &str, all: bool) -> String {
    let mut line = String::new();
    for character in text.chars() {
        // A name out of an image must not move the cursor.
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    if all || line.chars().count() <= 100 {
        return line;
    }
    let mut short: String = line.chars().take(100).collect();
    short.push('…');
    short
}

fn some<T>(text: &mut String, items: &[T], all: bool, line: impl Fn(&T) -> String) {
    let most = if all { items.len() } else { MOST_LINES };
    for item in items.iter().take(most) {
        text.push_str(&line(item));
    }
    if items.len() > most {
        text.push_str(&format!("  … and {} more (--all)\n", items.len() - most));
    }
}

fn layer_text(text: &mut String, layer: &LayerComparison, all: bool) {
    let sides = &layer.layers;
    let position = sides.b.as_ref().or(sides.a.as_ref()).map_or(0, |side| side.position);
    let place = match (&sides.a, &sides.b) {
        (Some(_), None) => ", only in the first",
        (None, Some(_)) => ", only in the second",
        _ => "",
    };
    let made_by = if layer.made_by.is_empty() {
        String::new()
    } else {
        format!(" \"{}\"", shorten(&layer.made_by, false))
    };
    let what = if layer.verdict == Verdict::Equivalent {
        "the same content, compressed or framed in another way".to_owned()
    } else {
        let paths = if layer.paths == 1 { "path differs" } else { "paths differ" };
        format!("{} {paths}, {} unexplained", layer.paths, layer.unexplained)
    };
    text.push_str(&format!("layer {position}{made_by}{place}: {what}\n"));
    let most = if all { layer.groups.len() } else { MOST_LINES };
    let rows: Vec<Vec<String>> = layer
        .groups
        .iter()
        .take(most)
        .map(|group| {
            let cure = group.rule.map_or_else(String::new, |rule| format!(" (rule {rule})"));
            vec![
                format!("  {}", group.cause.word()),
                format!("{}{cure}", shorten(&group.text, all)),
                format!(
                    "{}{} path{}",
                    shorten(&group.by_steps(), all),
                    group.paths,
                    if group.paths == 1 { "" } else { "s" }
                ),
                shorten(&group.place, all),
            ]
        })
        .collect();
    text.push_str(&render::table(&rows));
    if layer.groups.len() > most {
        text.push_str(&format!("  … and {} more (--all)\n", layer.groups.len() - most));
    }
    let mut told: Vec<&str> = Vec::new();
    for group in &layer.groups {
        // A rule that was not applied is its own cure.
        if let (None, Some(cure)) = (group.rule, &group.cure)
            && group.cause != Cause::Input
            && !told.contains(&cure.as_str())
        {
            text.push_str(&format!("  cure for {}: {cure}\n", group.cause.word()));
            told.push(cure);
        }
    }
}
