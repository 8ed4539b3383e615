//! `ocibuild gc`: frees what no image and no recent layer needs.

use ocibuild::ops;

use super::context::Context;
use super::{Outcome, render, terminal};

/// Free what no image and no recent layer needs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild gc                       keep images, and 20 GB of cached and unpacked layers
  ocibuild gc --keep 0              keep images only
  ocibuild gc --dry-run --json      tell what would go")]
pub(crate) struct Args {
    /// How much of cached and unpacked layers to keep, the least recently used go first
    #[arg(long, value_name = "SIZE", default_value = "20G", value_parser = size)]
    keep: u64,
    /// Tell what would be freed, and free nothing
    #[arg(long)]
    dry_run: bool,
}

/// Reads `14G`, `500M` or a count of bytes; units are powers of 1000, with `i` of 1024.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        other => return Err(format!("`{other}` is no unit; use K, M, G, T or Ki, Mi, Gi, Ti")),
    };
    let count: u64 =
        digits.parse().map_err(|_| "give a whole number and a unit, as 14G".to_owned())?;
    count.checked_mul(unit).ok_or_else(|| "that is more than 64 bits hold".to_owned())
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let report = ops::gc(args.keep, args.dry_run, &context.ops())?;
    render::result(&report, context.json, |report| {
        format!(
            "{} {} in {} blobs and {} trees, kept {}\n",
            if report.dry_run { "would free" } else { "freed" },
            terminal::bytes(report.freed_bytes),
            report.blobs,
            report.trees,
            terminal::bytes(report.kept_bytes)
        )
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_with_units() {
        assert_eq!(super::size("14G"), Ok(14_000_000_000));
        assert_eq!(super::size("2Ki"), Ok(2048));
        assert_eq!(super::size("7"), Ok(7));
        assert!(super::size("G").is_err());
        assert!(super::size("1X").is_err());
        assert!(super::size("99999999T").is_err());
    }
}
