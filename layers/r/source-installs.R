# Packages that are compiled in a build come out the same each time.
#
# R CMD INSTALL unpacks a source package into a folder with a random name, which stays in the
# package's help and in its libraries; R CMD build does so with a package's folder. Here that
# folder is named after the package's file. The help also keeps the times of its sources. Read by
# the site's profile or a user's, and only in a builder's run, which sets SOURCE_DATE_EPOCH.
local({
  if (!nzchar(Sys.getenv("SOURCE_DATE_EPOCH"))) return()
  # littler reads this file, but tells the R that it starts to read none.
  if (identical(Sys.getenv("R_PROFILE", NA), "")) Sys.unsetenv("R_PROFILE")

  arguments <- strsplit(paste(commandArgs(TRUE), collapse = " "), "nextArg", fixed = TRUE)[[1L]]
  files <- grep("[.](tar|tar[.][a-z0-9]+|tgz|tbz|tbz2|txz)$", arguments, value = TRUE)
  folders <- Filter(dir.exists, arguments)
  named <- c(R.INSTALL = files[1L], Rbuild = folders[1L])
  made <- base::tempfile
  source_of <- base::srcfile
  if (all(is.na(named)) || isTRUE(attr(made, "fixed"))) return()

  fixed <- function(pattern = "file", tmpdir = tempdir(), fileext = "") {
    if (length(pattern) != 1L || is.na(named[pattern])) return(made(pattern, tmpdir, fileext))
    name <- paste0(pattern, "-", basename(normalizePath(named[[pattern]], mustWork = FALSE)))
    name <- path <- file.path(dirname(tempdir()), name)
    # One is there while the same package is installed twice at once, or after a killed run.
    count <- 1L
    while (file.exists(path)) path <- paste0(name, "-", count <- count + 1L)
    path
  }
  attr(fixed, "fixed") <- TRUE
  timeless <- function(...) {
    file <- source_of(...)
    file$timestamp <- .POSIXct(NA_real_)
    file
  }

  set <- function(name, value) {
    unlockBinding(name, baseenv())
    assign(name, value, envir = baseenv())
    lockBinding(name, baseenv())
  }
  set("tempfile", fixed)
  set("srcfile", timeless)
})
