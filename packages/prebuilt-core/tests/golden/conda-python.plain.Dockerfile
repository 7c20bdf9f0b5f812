# Image fee60506789830b72487ebc701c5060d2c9e934a of metaflow-prebuilt

FROM python:3.11-slim AS environment
USER 0
COPY . /prebuilt
RUN ["python3", "-I", "/prebuilt/materialise.pyz"]

FROM gpu.example/cuda@sha256:abababababababababababababababababababababababababababababababab
COPY --from=environment /prebuilt/made/bf2491713a057d0ad23baa57e133ae0d4bb6240c/ /
COPY --from=environment /prebuilt/made/663ff508bf5a258001e7c3c021c3300203d7091e/ /
ENV PATH="/opt/prebuilt/env/bin:${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
ENV METAFLOW_SKIP_INSTALL_DEPENDENCIES="1"
LABEL "metaflow-prebuilt.format"="1"
LABEL "metaflow-prebuilt.image"="fee60506789830b72487ebc701c5060d2c9e934a"
LABEL "metaflow-prebuilt.lock"="948fce9ac32c8d78fd857ebd7930908fb31a3efe"
LABEL "metaflow-prebuilt.requirements"="5f294bcd756dfe5f4018c4d6d4c866ea2c4c2c10"
ENTRYPOINT []
