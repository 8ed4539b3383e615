//! "Did you mean": the known word that is nearest to a misspelt one.

/// Returns the known word that was probably meant, if one is near enough.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let meant = plain(word);
    known
        .into_iter()
        .filter(|candidate| *candidate != word)
        .map(|candidate| (strsim::osa_distance(&meant, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| {
            let longest = meant.chars().count().max(candidate.chars().count());
            *distance <= (longest / 3).max(usize::from(longest > 1))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_leaves_strangers_alone() {
        let known = ["image", "base", "platforms", "stop-signal"];
        assert_eq!(nearest("bse", known), Some("base"));
        assert_eq!(nearest("platform", known), Some("platforms"));
        assert_eq!(nearest("stop_signal", known), Some("stop-signal"));
        assert_eq!(nearest("IMAGE", known), Some("image"));
        assert_eq!(nearest("volumes", known), None);
    }
}
