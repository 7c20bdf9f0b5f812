# Image d5b51becf4f59f618abce6160a9e1b1c199da623 of metaflow-prebuilt

FROM --platform=$BUILDPLATFORM tools.example/python:3.11 AS tools
USER 0
COPY ca.pem /prebuilt/ca.pem
COPY materialise.pyz /prebuilt/materialise.pyz
COPY tools.txt /prebuilt/tools.txt
RUN ["python3", "-I", "/prebuilt/materialise.pyz"]

# interpreter
FROM tools AS layer-00
RUN --mount=type=bind,source=layers/ff21c4c6f0271a6acb9614bef464732fef933d01.json,target=/prebuilt/layers/ff21c4c6f0271a6acb9614bef464732fef933d01.json ["python3", "-I", "/prebuilt/materialise.pyz"]

# six
FROM tools AS layer-01
RUN --mount=type=bind,source=layers/58d8a3bfeddb90dc2a2612bc2054a66fe7c725a4.json,target=/prebuilt/layers/58d8a3bfeddb90dc2a2612bc2054a66fe7c725a4.json ["python3", "-I", "/prebuilt/materialise.pyz"]

# torch
FROM tools AS layer-02
RUN --mount=type=bind,source=layers/230bafc023bc3bf9a39d8a531b6f757f8e95c209.json,target=/prebuilt/layers/230bafc023bc3bf9a39d8a531b6f757f8e95c209.json ["python3", "-I", "/prebuilt/materialise.pyz"]

FROM --platform=linux/amd64 docker.io/library/python@sha256:abababababababababababababababababababababababababababababababab
COPY --link --from=layer-00 /prebuilt/made/ff21c4c6f0271a6acb9614bef464732fef933d01/ /
COPY --link --from=layer-01 /prebuilt/made/58d8a3bfeddb90dc2a2612bc2054a66fe7c725a4/ /
COPY --link --from=layer-02 /prebuilt/made/230bafc023bc3bf9a39d8a531b6f757f8e95c209/ /
ENV PATH="/opt/prebuilt/env/bin:${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
ENV METAFLOW_SKIP_INSTALL_DEPENDENCIES="1"
LABEL "metaflow-prebuilt.format"="1"
LABEL "metaflow-prebuilt.image"="d5b51becf4f59f618abce6160a9e1b1c199da623"
LABEL "metaflow-prebuilt.lock"="0f3b95a919588f2047b060982ae86e03b710d34d"
LABEL "metaflow-prebuilt.requirements"="5f294bcd756dfe5f4018c4d6d4c866ea2c4c2c10"
ENTRYPOINT []
