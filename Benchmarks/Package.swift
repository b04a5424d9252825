// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "swift-xen-benchmarks",
  dependencies: [
    .package(name: "swift-xen", path: ".."),
    .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.5.0"),
    .package(url: "https://github.com/apple/swift-log.git", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-system.git", from: "1.4.0"),
  ],
  targets: [
    .target(name: "CRingTwin"),
    .target(name: "Measuring", swiftSettings: [.strictMemorySafety(), .treatAllWarnings(as: .error)]),
    .executableTarget(
      name: "block-benchmark",
      dependencies: [
        "Measuring",
        .product(name: "BlkFront", package: "swift-xen"),
        .product(name: "BlockStores", package: "swift-xen"),
        .product(name: "XenLoopback", package: "swift-xen"),
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: [.strictMemorySafety(), .treatAllWarnings(as: .error)]),
    .executableTarget(
      name: "driver-benchmark",
      dependencies: [
        "Measuring",
        .product(name: "BlkBack", package: "swift-xen"),
        .product(name: "BlkFront", package: "swift-xen"),
        .product(name: "BlockStores", package: "swift-xen"),
        .product(name: "NetBack", package: "swift-xen"),
        .product(name: "NetFront", package: "swift-xen"),
        .product(name: "XenLoopback", package: "swift-xen"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: [.strictMemorySafety(), .treatAllWarnings(as: .error)]),
    .executableTarget(
      name: "wake-benchmark",
      dependencies: [
        "Measuring",
        .product(name: "BlkBack", package: "swift-xen"),
        .product(name: "BlkFront", package: "swift-xen"),
        .product(name: "BlockStores", package: "swift-xen"),
        .product(name: "NetBack", package: "swift-xen"),
        .product(name: "NetFront", package: "swift-xen"),
        .product(name: "XenLoopback", package: "swift-xen"),
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: [.strictMemorySafety(), .treatAllWarnings(as: .error)]),
    .executableTarget(
      name: "net-benchmark",
      dependencies: [
        .product(name: "NetBack", package: "swift-xen"),
        .product(name: "NetFront", package: "swift-xen"),
        .product(name: "XenLoopback", package: "swift-xen"),
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: [.strictMemorySafety(), .treatAllWarnings(as: .error)]),
    .executableTarget(name: "net-twin"),
    .executableTarget(
      name: "ring-benchmark",
      dependencies: [
        "CRingTwin",
        "Measuring",
        .product(name: "XenPlatform", package: "swift-xen"),
        .product(name: "XenRing", package: "swift-xen"),
      ],
      swiftSettings: [.strictMemorySafety(), .treatAllWarnings(as: .error)]),
  ]
)
