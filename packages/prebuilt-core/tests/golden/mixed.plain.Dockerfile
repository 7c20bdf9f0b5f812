# Image 6e4d373aaad8db4f225d79ffa5ce5b87019bc41f of metaflow-prebuilt

FROM docker.io/library/python@sha256:1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d AS environment
USER 0
COPY . /prebuilt
RUN ["/usr/local/bin/python3.11", "-I", "/prebuilt/materialise.pyz"]

FROM docker.io/library/python@sha256:abababababababababababababababababababababababababababababababab
COPY --from=environment /prebuilt/made/bf2491713a057d0ad23baa57e133ae0d4bb6240c/ /
COPY --from=environment /prebuilt/made/663ff508bf5a258001e7c3c021c3300203d7091e/ /
COPY --from=environment /prebuilt/made/58d8a3bfeddb90dc2a2612bc2054a66fe7c725a4/ /
COPY --from=environment /prebuilt/made/230bafc023bc3bf9a39d8a531b6f757f8e95c209/ /
ENV PATH="/opt/prebuilt/env/bin:${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
ENV METAFLOW_SKIP_INSTALL_DEPENDENCIES="1"
LABEL "metaflow-prebuilt.format"="1"
LABEL "metaflow-prebuilt.image"="6e4d373aaad8db4f225d79ffa5ce5b87019bc41f"
LABEL "metaflow-prebuilt.lock"="8a93f2ffa39b4c87d969c591957e7d3baae04068"
LABEL "metaflow-prebuilt.requirements"="5f294bcd756dfe5f4018c4d6d4c866ea2c4c2c10"
ENTRYPOINT []
