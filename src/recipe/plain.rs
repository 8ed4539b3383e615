//! Recipes without `layer.toml`: the files that data scientists have anyway, and what they mean.
//!
//! They are written out as the text of a `layer.toml`, so that nothing below this knows of them.
//! Python's and conda's run as whoever owns the environment, for in the Jupyter images that is the
//! user, who installs into it later on.

use std::fmt::Write as _;

use super::{Files, Node};

/// A file name with the step that it stands for.
#[derive(Debug)]
pub struct Convention {
    /// The file, at the top of the recipe's folder.
    pub file: &'static str,
    /// What is done with it.
    script: &'static str,
}

/// The conventions, in the order in which their steps are done.
pub const PLAIN: [Convention; 4] = [
    Convention {
        file: "apt.txt",
        script: r#"
apt-get update
sed 's/#.*//' "$OCIBUILD_RECIPE/apt.txt" \
    | xargs -r apt-get install -y --no-install-recommends --"#,
    },
    Convention {
        file: "environment.yml",
        script: r#"
conda="${CONDA_DIR:-/opt/conda}"
tool="$(PATH="$conda/bin:$PATH" command -v mamba || PATH="$conda/bin:$PATH" command -v conda)"
setpriv --reuid "$(stat -c %u "$conda")" --regid "$(stat -c %g "$conda")" --clear-groups \
    env HOME=/tmp "$tool" env update --quiet -n base -f "$OCIBUILD_RECIPE/environment.yml""#,
    },
    Convention {
        file: "requirements.txt",
        script: r#"
conda="${CONDA_DIR:-/opt/conda}"
python="$(PATH="$conda/bin:$PATH" command -v python3)"
owner="$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')"
setpriv --reuid "$(stat -c %u "$owner")" --regid "$(stat -c %g "$owner")" --clear-groups \
    env HOME=/tmp "$python" -m pip install -r "$OCIBUILD_RECIPE/requirements.txt""#,
    },
    // bspm compiles everything when apt's lists, empty as a layer begins, offer it nothing. R only
    // warns of a package that could not be installed, and ends well. And what it compiles would be
    // another thing each time: images with our layer `r` know that already, others learn it here.
    Convention {
        file: "install.r",
        script: concat!(
            r#"
if Rscript -e 'quit(status = !isNamespaceLoaded("bspm"))'; then apt-get update; fi
export R_PROFILE_USER=/tmp/source-installs.R
cat >"$R_PROFILE_USER" <<'END'
"#,
            include_str!("../../layers/r/source-installs.R"),
            r#"
for (profile in Filter(file.exists, c(".Rprofile", "~/.Rprofile"))[1]) if (!is.na(profile)) source(profile)
END
Rscript -e '
failed <- "non-zero exit status|(is|are) not available|download of package|unable to access index"
withCallingHandlers(source(commandArgs(TRUE)[1]), warning = function(w)
    if (grepl(failed, conditionMessage(w))) stop(conditionMessage(w), call. = FALSE))
' "$OCIBUILD_RECIPE/install.r""#
        ),
    },
];

/// Returns the `layer.toml` that a folder without one stands for, if it holds any of the files.
pub(super) fn written_out(files: &Files) -> Option<String> {
    let mut text = String::new();
    for convention in &PLAIN {
        if matches!(files.get(convention.file), Some(Node::File { .. })) {
            let name = convention.file.to_ascii_lowercase();
            let script = convention.script;
            // Writing to a String cannot fail.
            write!(text, "[[step]]\nname = \"{name}\"\nscript = '''{script}\n'''\n").ok();
        }
    }
    (!text.is_empty()).then_some(text)
}
