//! Wrong Dockerfiles that can be parsed: the whole message, as it is printed.

use super::*;

#[test]
fn stages() {
    insta::assert_snapshot!(fails("FROM busybox AS me\nCOPY --from=me /a /b\n"));
    insta::assert_snapshot!(fails(
        "FROM busybox AS a\nCOPY --from=c /x /y\nFROM busybox AS b\nRUN --mount=from=a,target=/a x\nFROM b AS c\n"
    ));
    insta::assert_snapshot!(fails(
        "FROM busybox AS a\nCOPY --from=late /x /y\nFROM busybox AS late\nFROM a\n"
    ));
    insta::assert_snapshot!(fails("FROM busybox AS build\nFROM busybox\nCOPY --from=biuld /x /y\n"));
    insta::assert_snapshot!(fails("FROM busybox AS build\nFROM busybox\nCOPY --from=2 /x /y\n"));
    insta::assert_snapshot!(fails("FROM busybox\nARG S=0\nCOPY --from=$S /x /y\n"));
    insta::assert_snapshot!(fails("FROM busybx\n"));
    let target = |name: &str| PlanOptions { target: Some(name.into()), ..options() };
    insta::assert_snapshot!(fails_with("FROM busybox AS build\nFROM busybox AS test\n", &target("tset")));
    insta::assert_snapshot!(fails_with("FROM busybox AS build\nFROM busybox AS test\n", &target("0")));
}

#[test]
fn from_lines() {
    insta::assert_snapshot!(fails("ARG BASE\nFROM $BASE\n"));
    insta::assert_snapshot!(fails("FROM --platform=linux/a/b/c busybox\n"));
    insta::assert_snapshot!(fails("FROM --platform=$TARGETPLATFROM busybox\n"));
    insta::assert_snapshot!(fails("FROM busybox:${TAG:?missing}\n"));
}

#[test]
fn copies() {
    insta::assert_snapshot!(fails("FROM busybox\nCOPY a https://h/x /y/\n"));
    insta::assert_snapshot!(fails("FROM busybox\nCOPY git@github.com:o/r.git /y\n"));
    insta::assert_snapshot!(fails("FROM busybox\nARG M=99999\nCOPY --chmod=$M a /y\n"));
    insta::assert_snapshot!(fails("FROM busybox\nADD --checksum=sha256:00 a /y\n"));
    insta::assert_snapshot!(fails("FROM busybox\nADD --checksum=sha256:00 https://h/a https://h/b /y/\n"));
    insta::assert_snapshot!(fails("FROM busybox\nADD --checksum=sha256:00 https://h/a /y/\n"));
    insta::assert_snapshot!(fails("FROM busybox\nCOPY <<E /y\nfirst\n${V:?set V}\nE\n"));
}

#[test]
fn runs() {
    insta::assert_snapshot!(fails("FROM busybox\nRUN --network=host x\n"));
    insta::assert_snapshot!(fails("FROM busybox\nRUN --security=insecure x\n"));
    insta::assert_snapshot!(fails("FROM busybox\nRUN --device=vendor.com/gpu=0 x\n"));
    insta::assert_snapshot!(fails("FROM busybox\nRUN --mount=type=tmpfs,target=/a/.. x\n"));
    insta::assert_snapshot!(fails("FROM busybox\nARG T=bnid\nRUN --mount=type=$T,target=/a x\n"));
}

#[test]
fn metadata() {
    insta::assert_snapshot!(fails("FROM busybox\nENV P=99999\nEXPOSE 80 $P\n"));
    insta::assert_snapshot!(fails("FROM busybox\nEXPOSE 80/htp\n"));
    insta::assert_snapshot!(fails("FROM busybox\nSTOPSIGNAL SIGTREM\n"));
    insta::assert_snapshot!(fails("FROM busybox\nVOLUME /a $NONE\n"));
    insta::assert_snapshot!(fails("FROM busybox\nLABEL a${NONE?not set}=x\n"));
    insta::assert_snapshot!(fails("FROM busybox\nARG V\nENV X=\"${V:?tell me}\"\n"));
}

#[test]
fn triggers() {
    insta::assert_snapshot!(fails("FROM shouting\nRUN x\n"));
    insta::assert_snapshot!(fails("FROM busybox AS p\nONBUILD ENV A=${B:?unset}\nFROM p\n"));
    insta::assert_snapshot!(fails("FROM triggers\n"));
}

#[test]
fn epochs() {
    insta::assert_snapshot!(fails("ARG SOURCE_DATE_EPOCH=today\nFROM busybox\n"));
}
