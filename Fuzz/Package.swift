// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [.strictMemorySafety(), .treatAllWarnings(as: .error)]

let drivers: [Target.Dependency] = [
  .product(name: "BlkBack", package: "swift-xen"), .product(name: "BlkFront", package: "swift-xen"),
  .product(name: "NetBack", package: "swift-xen"), .product(name: "NetFront", package: "swift-xen"),
  .product(name: "XenLoopback", package: "swift-xen"), .product(name: "XenRing", package: "swift-xen"),
]

/// Built with `--sanitize=fuzzer`, which brings libFuzzer and counts coverage in the library too. The targets' sources are a
/// target of the library's package as well, whose tests run the corpora.
let package = Package(
  name: "swift-xen-fuzz",
  dependencies: [
    .package(name: "swift-xen", path: ".."),
    .package(url: "https://github.com/apple/swift-log.git", from: "1.6.0"),
  ],
  targets: [
    .target(
      name: "FuzzTargets", dependencies: drivers + [.product(name: "Logging", package: "swift-log")],
      swiftSettings: strict),
    .executableTarget(name: "fuzz", dependencies: drivers + ["FuzzTargets"], swiftSettings: strict),
  ]
)
