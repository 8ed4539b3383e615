# An R image in three layers. bench/run takes the commands from here for each tool, so that all run
# the same ones.
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
