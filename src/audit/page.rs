//! A comparison as one page of HTML: the layers as a treemap, the differences to fold out. It has no
//! script and asks for nothing, and what came out of an image is escaped.

use std::fmt::Write as _;

use super::report::{
    Comparison, Difference, Explanation, Group, LayerComparison, PlatformComparison, Shown, Verdict,
};

/// The most paths of one cause that the page lists; `--json` has all.
const MOST_PATHS: usize = 300;

/// The width and height of a treemap.
const MAP: (f64, f64) = (1000.0, 260.0);

/// Draws a comparison.
pub fn page(comparison: &Comparison) -> String {
    let Comparison { a, b, verdict, .. } = comparison;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{} and {}</title>\n\
         <style>{}</style>\n<h1>{}</h1>\n<table>\n",
        escape(&a.name),
        escape(&b.name),
        include_str!("page.css"),
        verdict_of(*verdict, false),
    );
    for (letter, subject) in [("a", a), ("b", b)] {
        let _ = writeln!(
            out,
            "<tr><th>{letter}<td>{}<td class=\"v\">{}",
            escape(&subject.name),
            subject.digest
        );
    }
    out.push_str("</table>\n");
    fields(&mut out, &comparison.fields);
    for platform in &comparison.platforms {
        draw_platform(&mut out, platform);
    }
    out.push_str("</html>\n");
    out
}

fn draw_platform(out: &mut String, platform: &PlatformComparison) {
    let _ = writeln!(
        out,
        "<h2>{} {}</h2>",
        escape(&platform.platform),
        verdict_of(platform.verdict, false)
    );
    let alone = match (&platform.manifest.a, &platform.manifest.b) {
        (Some(_), None) => Some("the first"),
        (None, Some(_)) => Some("the second"),
        _ => None,
    };
    if let Some(side) = alone {
        let _ = writeln!(out, "<p>Only {side} image is for this platform.</p>");
        return;
    }
    treemap(out, platform);
    fields(out, &platform.fields);
    if !platform.packages.is_empty() {
        let _ = writeln!(
            out,
            "<details open><summary>{} packages differ</summary><table>",
            platform.packages.len()
        );
        for package in &platform.packages {
            let _ = writeln!(
                out,
                "<tr><th>{}<td>{}<td class=\"v\">{}<td class=\"v\">{}",
                package.kind,
                escape(&package.name),
                escape(package.a.as_deref().unwrap_or("none")),
                escape(package.b.as_deref().unwrap_or("none"))
            );
        }
        out.push_str("</table></details>\n");
    }
    for (number, layer) in platform.layers.iter().enumerate() {
        if layer.verdict != Verdict::Identical {
            draw_layer(out, &anchor(platform, number), number, layer);
        }
    }
}

fn anchor(platform: &PlatformComparison, number: usize) -> String {
    format!("{}-{number}", platform.platform.replace(|c: char| !c.is_ascii_alphanumeric(), "-"))
}

fn is_alone(layer: &LayerComparison) -> bool {
    layer.layers.a.is_none() || layer.layers.b.is_none()
}

fn draw_layer(out: &mut String, anchor: &str, number: usize, layer: &LayerComparison) {
    let _ = writeln!(
        out,
        "<h3 id=\"{anchor}\">layer {number} {} {}</h3>\n<div class=\"soft\">{}</div>",
        escape(&brief(&layer.made_by)),
        verdict_of(layer.verdict, is_alone(layer)),
        if layer.verdict == Verdict::Equivalent {
            "the same content, compressed or framed in another way".to_owned()
        } else {
            format!("{} paths differ, {} unexplained", layer.paths, layer.unexplained)
        }
    );
    for group in &layer.groups {
        let members: Vec<&Difference> =
            layer.differences.iter().filter(|difference| is_of(difference, group)).collect();
        draw_group(out, group, &members);
    }
}

/// Tells whether a difference was folded into a group.
fn is_of(difference: &Difference, group: &Group) -> bool {
    difference.cause == group.cause
        && if group.cause == super::Cause::Unexplained {
            difference.path == group.place
        } else {
            difference.text == group.text
        }
}

fn draw_group(out: &mut String, group: &Group, members: &[&Difference]) {
    let _ = writeln!(
        out,
        "<details><summary><span class=\"word\">{}</span> {} <span class=\"soft\">{}{} path{} {}</span></summary>",
        group.cause.word(),
        escape(&group.text),
        escape(&group.by_steps()),
        group.paths,
        if group.paths == 1 { "" } else { "s" },
        escape(&group.place),
    );
    if let Some(cure) = &group.cure {
        let _ = writeln!(out, "<div class=\"soft\">cure: {}</div>", escape(cure));
    }
    for difference in members.iter().take(MOST_PATHS) {
        draw_difference(out, difference);
    }
    if members.len() > MOST_PATHS {
        let _ = writeln!(
            out,
            "<div class=\"soft\">and {} more, which --json lists</div>",
            members.len() - MOST_PATHS
        );
    }
    out.push_str("</details>\n");
}

fn draw_difference(out: &mut String, difference: &Difference) {
    let change = match difference.change {
        super::Change::Added => "added",
        super::Change::Removed => "removed",
        super::Change::Changed => "changed",
    };
    let _ = write!(
        out,
        "<details><summary><code>{}</code> <span class=\"soft\">{change}{}{}{}</span></summary>\n<table>",
        escape(&difference.path),
        if difference.fields.is_empty() { "" } else { ": " },
        difference.fields.join(", "),
        difference
            .step
            .as_ref()
            .map_or_else(String::new, |step| format!(", by step {}", escape(step))),
    );
    let row = |out: &mut String, name: &str, of: &dyn Fn(&Shown) -> Option<String>| {
        let values = (difference.a.as_ref().and_then(of), difference.b.as_ref().and_then(of));
        if values.0 != values.1 {
            let shown = |value: Option<String>| escape(&value.unwrap_or_else(|| "–".to_owned()));
            let _ = writeln!(
                out,
                "<tr><th>{name}<td class=\"v\">{}<td class=\"v\">{}",
                shown(values.0),
                shown(values.1)
            );
        }
    };
    row(out, "type", &|side| Some(side.kind.to_owned()));
    row(out, "mode", &|side| Some(side.mode.clone()));
    row(out, "owner", &|side| Some(side.owner.clone()));
    row(out, "size", &|side| (side.kind == "file").then(|| side.size.to_string()));
    row(out, "mtime", &|side| Some(side.mtime.to_string()));
    row(out, "link", &|side| side.link.clone());
    row(out, "device", &|side| side.device.clone());
    row(out, "capability", &|side| side.capability.clone());
    row(out, "sha256", &|side| side.sha256.clone());
    out.push_str("</table>\n");
    if let Some(content) = &difference.content {
        draw_content(out, content);
    }
    out.push_str("</details>\n");
}

fn draw_content(out: &mut String, content: &Explanation) {
    let _ = writeln!(out, "<div>{}: {}</div>", content.kind, escape(&content.summary));
    if let Some(diff) = &content.diff {
        out.push_str("<pre>");
        for line in diff.lines() {
            let class = match line.as_bytes().first() {
                Some(b'-') => " class=\"m\"",
                Some(b'+') => " class=\"p\"",
                _ => "",
            };
            let _ = write!(out, "<b{class}>{}</b>", escape(line));
        }
        out.push_str("</pre>\n");
    }
    for part in &content.parts {
        match &part.content {
            Some(inner) => {
                let _ = writeln!(
                    out,
                    "<details><summary><code>{}</code> {}</summary>",
                    escape(&part.name),
                    escape(&part.what)
                );
                draw_content(out, inner);
                out.push_str("</details>\n");
            }
            None => {
                let _ = writeln!(
                    out,
                    "<div><code>{}</code> {}</div>",
                    escape(&part.name),
                    escape(&part.what)
                );
            }
        }
    }
}

fn fields(out: &mut String, fields: &[super::FieldChange]) {
    if fields.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "<details open><summary>{} fields of documents differ</summary><table>",
        fields.len()
    );
    for change in fields {
        let shown = |value: &Option<serde_json::Value>| {
            escape(&value.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string))
        };
        let _ = writeln!(
            out,
            "<tr><th>{}<td>{}<td class=\"v\">{}<td class=\"v\">{}",
            change.document,
            escape(&change.field),
            shown(&change.a),
            shown(&change.b)
        );
    }
    out.push_str("</table></details>\n");
}

fn verdict_of(verdict: Verdict, alone: bool) -> String {
    let (class, word) = match verdict {
        _ if alone => ("alone", "on one side only"),
        Verdict::Identical => ("identical", "identical"),
        Verdict::Equivalent => ("equivalent", "equivalent"),
        Verdict::Differs => ("differs", "differs"),
    };
    format!("<span class=\"verdict {class}\">{word}</span>")
}

/// Draws the layers as rectangles of their sizes.
#[expect(clippy::cast_precision_loss, reason = "a picture needs no exact sizes")]
fn treemap(out: &mut String, platform: &PlatformComparison) {
    let size = |layer: &LayerComparison| {
        let sides = layer.layers.a.iter().chain(&layer.layers.b);
        sides.map(|side| side.size).max().unwrap_or(0).max(1)
    };
    let mut order: Vec<usize> = (0..platform.layers.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(size(&platform.layers[*at])));
    let sizes: Vec<f64> = order.iter().map(|at| size(&platform.layers[*at]) as f64).collect();
    let _ = writeln!(
        out,
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"layers by size\">",
        MAP.0, MAP.1
    );
    for (at, Area { x, y, width, height }) in order.iter().zip(areas(&sizes)) {
        let layer = &platform.layers[*at];
        let class = match layer.verdict {
            _ if is_alone(layer) => "alone",
            Verdict::Identical => "identical",
            Verdict::Equivalent => "equivalent",
            Verdict::Differs => "differs",
        };
        let name = brief(&layer.made_by);
        let megabytes = size(layer) as f64 / 1e6;
        let label = format!("{at} {name}");
        let _ = write!(
            out,
            "<a href=\"#{}\"><rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
             height=\"{height:.1}\"><title>layer {}: {megabytes:.1} MB, {} paths differ</title></rect>",
            anchor(platform, *at),
            escape(&label),
            layer.paths
        );
        // A letter takes some seven units.
        let room = ((width - 8.0) / 7.0).max(0.0);
        if height > 34.0 && room >= 4.0 {
            let fitting: String = label.chars().take(whole(room)).collect();
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\">{}</text><text x=\"{:.1}\" y=\"{:.1}\">{megabytes:.1} MB</text>",
                x + 5.0,
                y + 15.0,
                escape(&fitting),
                x + 5.0,
                y + 30.0
            );
        }
        out.push_str("</a>\n");
    }
    out.push_str("</svg>\n");
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of letters between 0 and some hundreds"
)]
fn whole(number: f64) -> usize {
    number as usize
}

#[derive(Clone, Copy, Debug)]
struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// Cuts the map by sizes, the largest first, so that rectangles come out as square as they can
/// (Bruls, Huizing and van Wijk's squarified treemap).
fn areas(sizes: &[f64]) -> Vec<Area> {
    let total: f64 = sizes.iter().sum();
    let scale = MAP.0 * MAP.1 / total.max(1.0);
    let mut rest = Area { x: 0.0, y: 0.0, width: MAP.0, height: MAP.1 };
    let mut found = Vec::new();
    let mut from = 0;
    while from < sizes.len() {
        let side = rest.width.min(rest.height).max(0.001);
        // How far from square the worst of a row is.
        let worst = |row: &[f64]| -> f64 {
            let sum: f64 = row.iter().sum::<f64>() * scale;
            row.iter()
                .map(|size| {
                    let area = size * scale;
                    let ratio = side * side * area / (sum * sum);
                    ratio.max(1.0 / ratio)
                })
                .fold(0.0, f64::max)
        };
        let mut to = from + 1;
        while to < sizes.len() && worst(&sizes[from..=to]) <= worst(&sizes[from..to]) {
            to += 1;
        }
        let sum: f64 = sizes[from..to].iter().sum::<f64>() * scale;
        let depth = sum / side;
        let mut along = 0.0;
        for size in &sizes[from..to] {
            let length = size * scale / depth.max(0.001);
            found.push(if rest.width >= rest.height {
                Area { x: rest.x, y: rest.y + along, width: depth, height: length }
            } else {
                Area { x: rest.x + along, y: rest.y, width: length, height: depth }
            });
            along += length;
        }
        if rest.width >= rest.height {
            rest = Area { x: rest.x + depth, width: rest.width - depth, ..rest };
        } else {
            rest = Area { y: rest.y + depth, height: rest.height - depth, ..rest };
        }
        from = to;
    }
    found
}

/// Returns the first words of what made a layer.
fn brief(made_by: &str) -> String {
    let line = made_by.lines().next().unwrap_or_default();
    let mut text: String = line.chars().take(60).collect();
    if text.len() < made_by.len() {
        text.push('…');
    }
    text
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Of control characters only the harmless are HTML; others would be errors.
            '\n' | '\t' => out.push(character),
            control if control.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(control));
            }
            // Marks that change the direction could make one name look like another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_fill_the_map_and_nothing_is_left_unescaped() {
        let sizes = [600.0, 300.0, 60.0, 30.0, 9.0, 1.0];
        let found = areas(&sizes);
        let total: f64 = found.iter().map(|area| area.width * area.height).sum();
        assert!((total - MAP.0 * MAP.1).abs() < 1.0, "{total}");
        for (area, size) in found.iter().zip(sizes) {
            assert!((area.width * area.height - size * MAP.0 * MAP.1 / 1000.0).abs() < 1.0);
            assert!(area.x >= -0.01 && area.x + area.width <= MAP.0 + 0.01);
            assert!(area.y >= -0.01 && area.y + area.height <= MAP.1 + 0.01);
        }
        assert_eq!(
            escape("<a href='x'>&\"\u{1b}\u{202e}"),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\\u{1b}\\u{202e}"
        );
    }
}
