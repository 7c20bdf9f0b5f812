# Image 6e4d373aaad8db4f225d79ffa5ce5b87019bc41f of metaflow-prebuilt

FROM --platform=$BUILDPLATFORM docker.io/library/python@sha256:1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d AS tools
USER 0
COPY ca.pem /prebuilt/ca.pem
COPY materialise.pyz /prebuilt/materialise.pyz
COPY tools.txt /prebuilt/tools.txt
RUN ["/usr/local/bin/python3.11", "-I", "/prebuilt/materialise.pyz"]

# python
FROM tools AS layer-00
RUN --mount=type=bind,source=layers/bf2491713a057d0ad23baa57e133ae0d4bb6240c.json,target=/prebuilt/layers/bf2491713a057d0ad23baa57e133ae0d4bb6240c.json ["/usr/local/bin/python3.11", "-I", "/prebuilt/materialise.pyz"]

# zlib
FROM tools AS layer-01
RUN --mount=type=bind,source=layers/663ff508bf5a258001e7c3c021c3300203d7091e.json,target=/prebuilt/layers/663ff508bf5a258001e7c3c021c3300203d7091e.json ["/usr/local/bin/python3.11", "-I", "/prebuilt/materialise.pyz"]

# six
FROM tools AS layer-02
RUN --mount=type=bind,source=layers/58d8a3bfeddb90dc2a2612bc2054a66fe7c725a4.json,target=/prebuilt/layers/58d8a3bfeddb90dc2a2612bc2054a66fe7c725a4.json ["/usr/local/bin/python3.11", "-I", "/prebuilt/materialise.pyz"]

# torch
FROM tools AS layer-03
RUN --mount=type=bind,source=layers/230bafc023bc3bf9a39d8a531b6f757f8e95c209.json,target=/prebuilt/layers/230bafc023bc3bf9a39d8a531b6f757f8e95c209.json ["/usr/local/bin/python3.11", "-I", "/prebuilt/materialise.pyz"]

FROM --platform=linux/amd64 docker.io/library/python@sha256:abababababababababababababababababababababababababababababababab
COPY --link --from=layer-00 /prebuilt/made/bf2491713a057d0ad23baa57e133ae0d4bb6240c/ /
COPY --link --from=layer-01 /prebuilt/made/663ff508bf5a258001e7c3c021c3300203d7091e/ /
COPY --link --from=layer-02 /prebuilt/made/58d8a3bfeddb90dc2a2612bc2054a66fe7c725a4/ /
COPY --link --from=layer-03 /prebuilt/made/230bafc023bc3bf9a39d8a531b6f757f8e95c209/ /
ENV PATH="/opt/prebuilt/env/bin:${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
ENV METAFLOW_SKIP_INSTALL_DEPENDENCIES="1"
LABEL "metaflow-prebuilt.format"="1"
LABEL "metaflow-prebuilt.image"="6e4d373aaad8db4f225d79ffa5ce5b87019bc41f"
LABEL "metaflow-prebuilt.lock"="8a93f2ffa39b4c87d969c591957e7d3baae04068"
LABEL "metaflow-prebuilt.requirements"="5f294bcd756dfe5f4018c4d6d4c866ea2c4c2c10"
ENTRYPOINT []
