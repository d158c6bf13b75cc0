//! Whole plans of Dockerfiles as people write them, as snapshots.

use super::*;

#[test]
fn a_c_program_in_two_stages() {
    insta::assert_snapshot!(planned(
        "FROM debian AS build\nRUN --mount=type=cache,target=/var/cache/apt apt-get install -y gcc\nWORKDIR /src\n\
         COPY hello.c .\nRUN gcc -static -o hello hello.c\n\nFROM busybox\nCOPY --from=build /src/hello /bin/\n\
         USER 1000\nENTRYPOINT [\"/bin/hello\"]\n"
    )
    .dump());
}

#[test]
fn a_web_service_with_arguments_and_metadata() {
    let text = "ARG BASE=busybox\nFROM ${BASE}\nARG VERSION=dev\nENV APP_VERSION=$VERSION PORT=8000\nWORKDIR /app\n\
                COPY --chown=nobody requirements.txt ./\nRUN pip install -r requirements.txt\nCOPY . .\n\
                EXPOSE $PORT\nHEALTHCHECK --interval=5s CMD wget -q localhost:$PORT\nVOLUME /data\nUSER nobody\n\
                CMD [\"python\", \"app.py\"]\n";
    insta::assert_snapshot!(planned_with(text, &with_args(&[("VERSION", "1.2")])).dump());
}

#[test]
fn a_diamond_with_heredocs() {
    insta::assert_snapshot!(planned(
        "FROM busybox AS base\nRUN <<EOF\nset -e\nmkdir /o\nEOF\n\nFROM base AS left\nCOPY <<conf /etc/\nside=left\nconf\n\n\
         FROM base AS right\nRUN --mount=from=left,source=/etc/conf,target=/conf cp /conf /o/right\n\n\
         FROM scratch\nCOPY --from=left /etc/conf /left\nCOPY --from=right /o /right\n"
    )
    .dump());
}

#[test]
fn an_application_on_a_base_with_triggers() {
    insta::assert_snapshot!(planned(
        "FROM debian AS tools\nRUN build-tools\nFROM busybox AS base\nONBUILD COPY --from=tools /t /usr/bin/t\nONBUILD RUN t --init\n\
         FROM base\nRUN t\nCMD t --run\n"
    )
    .dump());
}

#[test]
fn a_cross_build() {
    let text = "FROM --platform=$BUILDPLATFORM busybox AS build\nARG TARGETOS\nARG TARGETARCH\nWORKDIR /src\n\
                RUN GOOS=$TARGETOS GOARCH=$TARGETARCH go build -o /out\nFROM busybox\nCOPY --from=build /out /bin/app\nRUN app --check\n";
    let options = PlanOptions { platform: Some("linux/arm64".parse().unwrap()), ..options() };
    insta::assert_snapshot!(planned_with(text, &options).dump());
}
