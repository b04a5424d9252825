// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "swift-xen-benchmarks",
  dependencies: [.package(name: "swift-xen", path: "..")],
  targets: [
    .target(name: "CRingTwin"),
    .executableTarget(
      name: "ring-benchmark",
      dependencies: [
        "CRingTwin",
        .product(name: "XenPlatform", package: "swift-xen"),
        .product(name: "XenRing", package: "swift-xen"),
      ],
      swiftSettings: [.strictMemorySafety(), .treatAllWarnings(as: .error)]),
  ]
)
