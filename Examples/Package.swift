// swift-tools-version: 6.2
import PackageDescription

/// Every target: strict memory safety, and a warning is an error.
let strict: [SwiftSetting] = [.strictMemorySafety(), .treatAllWarnings(as: .error)]

let package = Package(
  name: "swift-xen-examples",
  dependencies: [
    .package(name: "swift-xen", path: ".."),
    .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.5.0"),
    .package(url: "https://github.com/apple/swift-crypto.git", "3.0.0"..<"5.0.0"),
    .package(url: "https://github.com/apple/swift-log.git", from: "1.6.0"),
  ],
  targets: [
    .executableTarget(
      name: "ring-tour",
      dependencies: [
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "XenPlatform", package: "swift-xen"),
        .product(name: "XenRing", package: "swift-xen"),
      ],
      swiftSettings: strict),
    .executableTarget(
      name: "demo",
      dependencies: [
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "BlkBack", package: "swift-xen"),
        .product(name: "BlkFront", package: "swift-xen"),
        .product(name: "NetBack", package: "swift-xen"),
        .product(name: "NetFront", package: "swift-xen"),
        .product(name: "Pcap", package: "swift-xen"),
        .product(name: "XenLoopback", package: "swift-xen"),
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: strict),
    .executableTarget(
      name: "blk-back",
      dependencies: [
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "BlkBack", package: "swift-xen"),
        .product(name: "XenNative", package: "swift-xen"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: strict),
    .executableTarget(
      name: "net-tap",
      dependencies: [
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "NetBack", package: "swift-xen"),
        .product(name: "NetFront", package: "swift-xen"),
        .product(name: "XenLoopback", package: "swift-xen"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: strict),
    // Runs the programs above as processes.
    .testTarget(
      name: "ExampleTests", dependencies: [.product(name: "Crypto", package: "swift-crypto")], swiftSettings: strict),
  ]
)
