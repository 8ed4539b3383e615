//! R packages that a recipe compiles, by every way to install them. Built twice in other surroundings
//! they have to come out the same, down to what compilers and R's help keep of where they ran.

use crate::support::cli::Project;

/// Makes a repository of packages: one with C, C++, Fortran, classes, data, a vignette and help that
/// computes, and one that needs it.
const REPOSITORY: &str = r#"
mkdir -p /tmp/repo/src/contrib ours/R ours/src ours/man ours/data ours/vignettes theirs/R theirs/man
cat >ours/DESCRIPTION <<'END'
Package: ours
Version: 1.2.3
Title: Of A Test
Description: Answers.
License: GPL-2
Author: A
Maintainer: A <a@b.c>
Depends: R (>= 3.5)
Imports: methods
LazyData: true
ByteCompile: true
END
sed 's/ours/theirs/; s/^Imports.*/Imports: ours/; /LazyData/d' ours/DESCRIPTION >theirs/DESCRIPTION
printf 'useDynLib(ours)\nexport(answer)\nexportClasses(thing)\nimport(methods)\n' >ours/NAMESPACE
printf 'export(ask)\nimport(ours)\n' >theirs/NAMESPACE
echo 'ask <- function() ours::answer()' >theirs/R/a.R
cat >ours/R/a.R <<'END'
answer <- function() .Call("answer", PACKAGE = "ours")
setClass("thing", representation(x = "numeric"))
setGeneric("area", function(o) standardGeneric("area"))
setMethod("area", "thing", function(o) o@x)
Ref <- setRefClass("Ref", fields = list(a = "numeric"), methods = list(b = function() a))
END
cat >ours/src/a.c <<'END'
#include <Rinternals.h>
#include <assert.h>
SEXP answer(void) { assert(R_NilValue != 0); return mkString(__FILE__ " of " __DATE__); }
END
cat >ours/src/b.cpp <<'END'
#include <string>
#include <vector>
extern "C" int many(int n) { std::vector<std::string> all(n, __FILE__); return all.size(); }
END
printf '      subroutine twice(x)\n      double precision x\n      x = 2*x\n      end\n' >ours/src/c.f
printf '\\name{answer}\\alias{answer}\\title{A}\\description{It is \\Sexpr[stage=build]{6*7}.}\n' >ours/man/answer.Rd
printf '\\name{ask}\\alias{ask}\\title{A}\\description{Asks.}\n' >theirs/man/ask.Rd
Rscript -e 'numbers <- data.frame(a = 1:1000); save(numbers, file = "ours/data/numbers.rda")'
cd /tmp/repo/src/contrib
for name in ours theirs; do R CMD build --no-build-vignettes --no-manual "/tmp/$name"; done
Rscript -e 'tools::write_PACKAGES(".", type = "source")'
"#;

/// One library for each way.
const WAYS: &str = r#"
mkdir -p /srv/1 /srv/2 /srv/3 /srv/4
export CRAN=file:///tmp/repo
R_LIBS=/srv/1 Rscript -e 'install.packages("theirs", lib = "/srv/1", Ncpus = 2)'
R_LIBS=/srv/2 install2.r --error --libloc /srv/2 --ncpus 2 --repos file:///tmp/repo theirs
R_LIBS=/srv/3 Rscript -e 'remotes::install_cran("theirs", lib = "/srv/3")'
R_LIBS=/srv/4 R CMD INSTALL --library=/srv/4 /tmp/repo/src/contrib/*.tar.gz
for lib in 1 2 3 4; do R_LIBS=/srv/$lib Rscript -e 'cat("said", theirs::ask(), "\n")'; done
"#;

/// As a scientist would write it, but for the repository.
const INSTALL: &str = r#"
stopifnot(system2("sh", file.path(Sys.getenv("OCIBUILD_RECIPE"), "repository")) == 0)
dir.create("/srv/5")
.libPaths("/srv/5")
install.packages("theirs", repos = "file:///tmp/repo")
"#;

/// Adds recipes that install from source to a project of the repository's, and a definition that has
/// them on what debian-ml has R and a compiler in.
pub(crate) fn add(project: &Project) {
    project.script("ways", &format!("cd /tmp{REPOSITORY}{WAYS}"));
    project.write("layers/plain/repository", format!("set -eu\ncd /tmp{REPOSITORY}"));
    project.write("layers/plain/install.r", INSTALL);
    // As on an image whose R is not ours.
    project.script("bare", "rm /etc/R/Rprofile.site /etc/R/source-installs.R");
    let text = std::fs::read_to_string(project.path("manifests/debian-ml.toml")).unwrap();
    let (below, above) = text.split_once("recipe = \"ide\"").unwrap();
    let below = below.rsplit_once('\n').unwrap().0;
    let (_, config) = above.split_once("\n]\n").unwrap();
    let text = format!("{below}\n  \"ways\", \"bare\", \"plain\",\n]\n{config}");
    project.write("manifests/packages.toml", text.replacen("/debian-ml\"", "/packages\"", 1));
}
