// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [.strictMemorySafety(), .treatAllWarnings(as: .error)]

let platform: [Target.Dependency] = [
  .product(name: "XenBus", package: "swift-xen"), .product(name: "XenNative", package: "swift-xen"),
  .product(name: "XenPlatform", package: "swift-xen"),
]
let netFront = Target.Dependency.product(name: "NetFront", package: "swift-xen")

/// Programs that Tests/Xen/run takes into the control domain of a real Xen. Every executable here gets there, and the
/// cases find it on their PATH.
let package = Package(
  name: "xen-rig",
  dependencies: [
    // The name is needed: the folder of a clone may be called anything.
    .package(name: "swift-xen", path: "../..")
  ],
  targets: [
    .target(name: "RigSupport", dependencies: platform, swiftSettings: strict),
    .executableTarget(
      name: "platform-conformance",
      dependencies: [
        .product(name: "PlatformConformance", package: "swift-xen"), .product(name: "XenNative", package: "swift-xen"),
      ],
      swiftSettings: strict),
    .executableTarget(
      name: "blk-front",
      dependencies: platform + ["RigSupport", .product(name: "BlkFront", package: "swift-xen")], swiftSettings: strict),
    .executableTarget(name: "hostile-blk-front", dependencies: platform + ["RigSupport"], swiftSettings: strict),
    .executableTarget(
      name: "net-back",
      dependencies: platform + ["RigSupport", .product(name: "NetBack", package: "swift-xen")], swiftSettings: strict),
    .target(
      name: "RigHost", dependencies: platform + ["RigSupport", netFront],
      swiftSettings: strict),
    .executableTarget(
      name: "net-front-ping", dependencies: platform + ["RigHost", "RigSupport", netFront], swiftSettings: strict),
    .executableTarget(
      name: "net-front-features", dependencies: platform + ["RigHost", "RigSupport", netFront], swiftSettings: strict),
    .executableTarget(name: "udp-echo-check", dependencies: platform + ["RigSupport"], swiftSettings: strict),
  ]
)
