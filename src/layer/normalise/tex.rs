//! Lists that TeX's tools write in the order in which a file system lists a folder.

use super::Times;

/// Sorts `ls-R`: the names of each folder, and the folders after the first, which is the tree's own.
pub(super) fn files(content: &[u8], _: &Times) -> Option<Vec<u8>> {
    let mut blocks: Vec<Vec<&[u8]>> = Vec::new();
    for block in whole_lines(content)?.split(|line| line.is_empty()) {
        let heads = block.iter().take_while(|line| is_head(line)).count();
        let mut block = block.to_vec();
        if heads > 0 {
            block[heads..].sort_unstable();
        }
        blocks.push(block);
    }
    let own = blocks.iter().position(|block| block.first().is_some_and(|line| is_head(line)))?;
    // A blank line at the end is a block without lines.
    let end = blocks.iter().rposition(|block| !block.is_empty())?;
    if blocks[own..=end].iter().any(|block| !block.first().is_some_and(|line| is_head(line))) {
        return None;
    }
    blocks[own + 1..=end].sort_unstable();
    Some(ended(&blocks.join(&&b""[..])))
}

fn is_head(line: &[u8]) -> bool {
    line.ends_with(b":") && line.starts_with(b".")
}

/// Sorts the lines below the comment that such a file begins with; one with further comments or
/// blank lines is left.
pub(super) fn settings(content: &[u8], _: &Times) -> Option<Vec<u8>> {
    let mut lines = whole_lines(content)?;
    let head = lines.iter().take_while(|line| line.starts_with(b"#")).count();
    if lines[head..].iter().any(|line| line.is_empty() || line.starts_with(b"#")) {
        return None;
    }
    lines[head..].sort_unstable();
    Some(ended(&lines))
}

/// Splits a text into its lines; `None` where the last one is cut.
fn whole_lines(content: &[u8]) -> Option<Vec<&[u8]>> {
    Some(content.strip_suffix(b"\n")?.split(|byte| *byte == b'\n').collect())
}

fn ended(lines: &[&[u8]]) -> Vec<u8> {
    let mut text = lines.join(&b'\n');
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { start: 1, end: 2, source_date: 1 };

    #[test]
    fn names_are_sorted_within_their_folders_and_folders_among_each_other() {
        let text = b"% ls-R -- do not change this line.\n\n./:\n.:\nweb2c\ntex\nls-R\n\n./web2c:\n\n./tex:\nb\na\n";
        let sorted = b"% ls-R -- do not change this line.\n\n./:\n.:\nls-R\ntex\nweb2c\n\n./tex:\na\nb\n\n./web2c:\n";
        let shown = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let new = files(text, &TIMES).unwrap();
        assert_eq!(shown(new.clone()), std::str::from_utf8(sorted).unwrap());
        assert_eq!(files(&new, &TIMES).unwrap(), new);
        let blank_at_the_end = [&text[..], b"\n"].concat();
        let new = files(&blank_at_the_end, &TIMES).unwrap();
        assert_eq!(shown(new), format!("{}\n", std::str::from_utf8(sorted).unwrap()));
        assert_eq!(files(b"cut", &TIMES), None);
        assert_eq!(files(b"no list\n", &TIMES), None);
        assert_eq!(files(b"./:\na\n\nwhat is this\n", &TIMES), None);
    }

    #[test]
    fn settings_are_sorted_below_their_comment() {
        let text = b"### made\n#\nMap utopia.map\nMap charter.map\n";
        assert_eq!(
            settings(text, &TIMES).unwrap(),
            b"### made\n#\nMap charter.map\nMap utopia.map\n"
        );
        assert_eq!(settings(b"b\n# of the next\na\n", &TIMES), None);
    }
}
