# What manifests/debian-r.toml makes, as buildah's users would write it: the same packages in the same
# steps. Kept beside the benchmark that compares them.
FROM localhost/debian-base
ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/*
RUN apt-get update && apt-get install -y --no-install-recommends r-base-core \
    && rm -rf /var/lib/apt/lists/*
RUN apt-get update && apt-get install -y --no-install-recommends \
    make r-cran-docopt r-cran-littler r-cran-remotes r-cran-jsonlite \
    && rm -rf /var/lib/apt/lists/*
CMD ["R", "--no-save"]
