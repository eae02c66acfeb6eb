# The image of the study: read-only, without network at run time, for any user id.
#   docker build --tag twinrun --build-arg COMMIT="$(git rev-parse HEAD)" --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" .
#   docker run --rm twinrun                                              # help
#   docker run --rm --network=none --read-only --tmpfs /tmp -v "$PWD:/study" -u "$(id -u):$(id -g)" twinrun dvc repro
#   docker run --rm --gpus all --network=none --read-only --tmpfs /tmp -v "$PWD:/study" -u "$(id -u):$(id -g)" twinrun dvc repro
ARG BASE_IMAGE=debian:bookworm-slim@sha256:96e378d7e6531ac9a15ad505478fcc2e69f371b10f5cdf87857c4b8188404716
FROM ${BASE_IMAGE}

# What changes rarely comes first: after a change to the code alone, the packages are not installed again.
COPY container/install.sh /opt/twinrun/study/container/
COPY requirements.lock requirements-uv.lock /opt/twinrun/study/
RUN /opt/twinrun/study/container/install.sh packages

ARG BASE_IMAGE
ARG COMMIT=unknown
ARG SOURCE=unknown
ARG SOURCE_DATE_EPOCH
COPY . /opt/twinrun/study
RUN /opt/twinrun/study/container/install.sh project

LABEL org.opencontainers.image.title="twinrun" \
      org.opencontainers.image.description="Train identical twins of an image classifier and say which differences are noise" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
# For the NVIDIA container toolkit. No variable that changes results stands here: Apptainer could not override it.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /study
USER 1000:1000
ENTRYPOINT ["/opt/twinrun/study/container/entrypoint.sh"]
