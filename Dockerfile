# One image for every stage, the commands, and the replay of the flights; see compose.yaml.

FROM python:3.11.13-slim-bookworm AS installed
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --constraint constraints.txt hatchling
COPY pyproject.toml README.md LICENSE ./
COPY topics topics
COPY stream_ml stream_ml
# Built with what is pinned too, rather than with what is newest today.
RUN /venv/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels . \
    && /venv/bin/pip uninstall --yes hatchling \
    && /venv/bin/pip install --no-cache-dir --constraint constraints.txt "$(ls /wheels/*.whl)[demo,metrics]"

FROM python:3.11.13-slim-bookworm
RUN useradd --create-home --uid 1000 stream-ml
COPY --from=installed /venv /venv
COPY tools/replay_flights.py /app/
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
USER stream-ml
WORKDIR /home/stream-ml
ENTRYPOINT ["stream-ml"]
CMD ["--help"]
