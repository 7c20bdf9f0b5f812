# Image fee60506789830b72487ebc701c5060d2c9e934a of metaflow-prebuilt

FROM --platform=$BUILDPLATFORM python:3.11-slim AS tools
USER 0
COPY ca.pem /prebuilt/ca.pem
COPY materialise.pyz /prebuilt/materialise.pyz
COPY tools.txt /prebuilt/tools.txt
RUN ["python3", "-I", "/prebuilt/materialise.pyz"]

# python
FROM tools AS layer-00
RUN --mount=type=bind,source=layers/bf2491713a057d0ad23baa57e133ae0d4bb6240c.json,target=/prebuilt/layers/bf2491713a057d0ad23baa57e133ae0d4bb6240c.json ["python3", "-I", "/prebuilt/materialise.pyz"]

# zlib
FROM tools AS layer-01
RUN --mount=type=bind,source=layers/663ff508bf5a258001e7c3c021c3300203d7091e.json,target=/prebuilt/layers/663ff508bf5a258001e7c3c021c3300203d7091e.json ["python3", "-I", "/prebuilt/materialise.pyz"]

FROM --platform=linux/amd64 gpu.example/cuda@sha256:abababababababababababababababababababababababababababababababab
COPY --link --from=layer-00 /prebuilt/made/bf2491713a057d0ad23baa57e133ae0d4bb6240c/ /
COPY --link --from=layer-01 /prebuilt/made/663ff508bf5a258001e7c3c021c3300203d7091e/ /
ENV PATH="/opt/prebuilt/env/bin:${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
ENV METAFLOW_SKIP_INSTALL_DEPENDENCIES="1"
LABEL "metaflow-prebuilt.format"="1"
LABEL "metaflow-prebuilt.image"="fee60506789830b72487ebc701c5060d2c9e934a"
LABEL "metaflow-prebuilt.lock"="948fce9ac32c8d78fd857ebd7930908fb31a3efe"
LABEL "metaflow-prebuilt.requirements"="5f294bcd756dfe5f4018c4d6d4c866ea2c4c2c10"
ENTRYPOINT []
