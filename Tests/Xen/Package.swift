// swift-tools-version: 6.2
import PackageDescription

/// Programs that Tests/Xen/run takes into the control domain of a real Xen. Every executable here gets there, and the
/// cases find it on their PATH.
let package = Package(
  name: "xen-rig",
  dependencies: [
    // The name is needed: the folder of a clone may be called anything.
    .package(name: "swift-xen", path: "../..")
  ],
  targets: [
    .executableTarget(
      name: "platform-conformance",
      dependencies: [
        .product(name: "PlatformConformance", package: "swift-xen"), .product(name: "XenNative", package: "swift-xen"),
      ],
      swiftSettings: [.strictMemorySafety(), .treatAllWarnings(as: .error)])
  ]
)
