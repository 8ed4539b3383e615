//! R's installed packages, by their `DESCRIPTION` ("Writing R Extensions", 1.1.1).

use super::fields::Paragraph;
use super::{Manager, Package};

/// Tells whether a path can be a package's description; only its content can say that it is one.
pub fn is_description(path: &str) -> bool {
    path.ends_with("/DESCRIPTION")
}

/// Reads a description. One without `Built` is a source, not an installed package.
pub fn package(text: &str) -> Option<Package> {
    let paragraph = Paragraph::first(text);
    paragraph.get("Built")?;
    let mut package =
        Package::new(Manager::R, paragraph.get("Package")?, paragraph.get("Version")?);
    let mut qualify = |name: &str, value: &str| {
        package.qualifiers.insert(name.to_owned(), value.to_owned());
    };
    if paragraph.get("Priority") == Some("base") {
        qualify("home", "r");
    } else if let (Some("github"), Some(user), Some(name)) =
        (paragraph.get("RemoteType"), paragraph.get("RemoteUsername"), paragraph.get("RemoteRepo"))
    {
        qualify("home", "github");
        qualify("repository", &format!("{user}/{name}"));
        if let Some(commit) = paragraph.get("RemoteSha") {
            qualify("commit", commit);
        }
    } else if paragraph.get("biocViews").is_some() {
        qualify("home", "bioconductor");
    } else if let Some(repository) = paragraph.get("Repository") {
        qualify("home", &repository.to_lowercase());
    }
    package.licence = paragraph.text("License");
    package.maintainer = paragraph.text("Maintainer");
    // Several addresses, or a remark after the first.
    package.homepage = paragraph
        .get("URL")
        .and_then(|text| text.split([',', ' ']).find(|word| word.contains("://")))
        .map(str::to_owned);
    Some(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_package_says_that_it_was_built() {
        let text = "Package: jsonlite\nVersion: 1.8.9\nLicense: MIT + file LICENSE\n\
                    URL: https://x.org/a, https://y.org\nRepository: CRAN\n";
        assert_eq!(package(text), None);
        let built = package(&format!("{text}Built: R 4.5.0; x86_64; unix\n")).unwrap();
        assert_eq!(built.homepage.as_deref(), Some("https://x.org/a"));
        assert_eq!(built.qualifiers["home"], "cran");
        let remote = "Package: a\nVersion: 1\nBuilt: R\nRemoteType: github\nRemoteUsername: u\n\
                      RemoteRepo: a\nRemoteSha: 0123\n";
        assert_eq!(package(remote).unwrap().qualifiers["repository"], "u/a");
    }
}
