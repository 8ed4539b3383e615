//! Which layer stands for which: those of one content first, in order, and between them those of one
//! recipe, then those of one place where the numbers agree.

use super::report::LayerSide;

/// Pairs the layers of two images, in order; each stands in one pair.
pub(super) fn pair(a: &[LayerSide], b: &[LayerSide]) -> Vec<(Option<usize>, Option<usize>)> {
    let mut pairs = Vec::new();
    between(a, b, 0, 0, &same_content, &mut |a, b, from_a, from_b| {
        between(a, b, from_a, from_b, &same_maker, &mut |a, b, from_a, from_b| {
            let (mine, theirs) = (from_a..from_a + a.len(), from_b..from_b + b.len());
            if a.len() == b.len() {
                pairs.extend(mine.zip(theirs).map(|(a, b)| (Some(a), Some(b))));
            } else {
                // Which one was put between the others nobody can tell.
                pairs.extend(mine.map(|a| (Some(a), None)));
                pairs.extend(theirs.map(|b| (None, Some(b))));
            }
        });
    });
    pairs
}

fn same_content(a: &LayerSide, b: &LayerSide) -> bool {
    a.digest == b.digest || (a.diff_id.is_some() && a.diff_id == b.diff_id)
}

fn same_maker(a: &LayerSide, b: &LayerSide) -> bool {
    !a.made_by.is_empty() && a.maker() == b.maker()
}

/// Takes two runs of layers, and the places that they begin at.
type Rest<'r> = dyn FnMut(&[LayerSide], &[LayerSide], usize, usize) + 'r;

/// Finds the longest common sequence by `same`, and gives what lies between its members, and each
/// member by itself, to `rest`.
fn between(
    a: &[LayerSide],
    b: &[LayerSide],
    from_a: usize,
    from_b: usize,
    same: &dyn Fn(&LayerSide, &LayerSide) -> bool,
    rest: &mut Rest<'_>,
) {
    // Images have some tens of layers.
    let mut longest = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for at in (0..a.len()).rev() {
        for of in (0..b.len()).rev() {
            longest[at][of] = if same(&a[at], &b[of]) {
                longest[at + 1][of + 1] + 1
            } else {
                longest[at + 1][of].max(longest[at][of + 1])
            };
        }
    }
    let (mut at, mut of) = (0, 0);
    let (mut since_a, mut since_b) = (0, 0);
    while at < a.len() && of < b.len() {
        if same(&a[at], &b[of]) {
            rest(&a[since_a..at], &b[since_b..of], from_a + since_a, from_b + since_b);
            rest(&a[at..=at], &b[of..=of], from_a + at, from_b + of);
            (at, of) = (at + 1, of + 1);
            (since_a, since_b) = (at, of);
        } else if longest[at + 1][of] >= longest[at][of + 1] {
            at += 1;
        } else {
            of += 1;
        }
    }
    rest(&a[since_a..], &b[since_b..], from_a + since_a, from_b + since_b);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn layers(names: &[(&str, &str)]) -> Vec<LayerSide> {
        let side = |(position, (content, maker)): (usize, &(&str, &str))| LayerSide {
            position,
            digest: Digest::of(content.as_bytes()),
            diff_id: None,
            size: 1,
            made_by: (*maker).to_owned(),
        };
        names.iter().enumerate().map(side).collect()
    }

    #[test]
    fn content_goes_before_recipe_and_recipe_before_place() {
        let a = layers(&[("base", ""), ("r1", "r"), ("py1", "py"), ("x", "x")]);
        let b = layers(&[("base", ""), ("new", "ide"), ("r2", "r"), ("py1", "py"), ("y", "y")]);
        assert_eq!(
            pair(&a, &b),
            [
                (Some(0), Some(0)),
                (None, Some(1)),
                (Some(1), Some(2)),
                (Some(2), Some(3)),
                (Some(3), Some(4))
            ]
        );
        assert_eq!(pair(&[], &b).len(), 5);
    }
}
