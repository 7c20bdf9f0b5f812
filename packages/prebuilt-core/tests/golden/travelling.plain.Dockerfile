# Image d5b51becf4f59f618abce6160a9e1b1c199da623 of metaflow-prebuilt

FROM docker.io/library/python@sha256:1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d AS environment
USER 0
COPY . /prebuilt
RUN ["/usr/local/bin/python3.11", "-I", "/prebuilt/materialise.pyz"]

FROM docker.io/library/python@sha256:abababababababababababababababababababababababababababababababab
COPY --from=environment /prebuilt/made/ff21c4c6f0271a6acb9614bef464732fef933d01/ /
COPY --from=environment /prebuilt/made/58d8a3bfeddb90dc2a2612bc2054a66fe7c725a4/ /
COPY --from=environment /prebuilt/made/230bafc023bc3bf9a39d8a531b6f757f8e95c209/ /
ENV PATH="/opt/prebuilt/env/bin:${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
ENV METAFLOW_SKIP_INSTALL_DEPENDENCIES="1"
LABEL "metaflow-prebuilt.format"="1"
LABEL "metaflow-prebuilt.image"="d5b51becf4f59f618abce6160a9e1b1c199da623"
LABEL "metaflow-prebuilt.lock"="0f3b95a919588f2047b060982ae86e03b710d34d"
LABEL "metaflow-prebuilt.requirements"="5f294bcd756dfe5f4018c4d6d4c866ea2c4c2c10"
ENTRYPOINT []
