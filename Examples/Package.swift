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
    .package(url: "https://github.com/apple/swift-nio.git", from: "2.80.0"),
    .package(url: "https://github.com/apple/swift-system.git", from: "1.4.0"),
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
        "ExampleSupport",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "BlkBack", package: "swift-xen"),
        .product(name: "BlkFront", package: "swift-xen"),
        .product(name: "BlockStores", package: "swift-xen"),
        .product(name: "NetBack", package: "swift-xen"),
        .product(name: "NetFront", package: "swift-xen"),
        .product(name: "Pcap", package: "swift-xen"),
        .product(name: "XenLoopback", package: "swift-xen"),
        .product(name: "Crypto", package: "swift-crypto"),
      ],
      swiftSettings: strict),
    .executableTarget(
      name: "xen-blkback",
      dependencies: [
        "BlkBackTool", "ToolSupport",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "BlkBack", package: "swift-xen"),
        .product(name: "BlockStores", package: "swift-xen"),
        .product(name: "XenNative", package: "swift-xen"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      exclude: ["xen-blkback.service"], swiftSettings: strict),
    // What programs that serve disks share: the options of a disk, where its bytes are, an encrypting store of one's own, and
    // how they say what a disk has done.
    .target(
      name: "BlkBackTool",
      dependencies: [
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "BlkBack", package: "swift-xen"), .product(name: "BlockStores", package: "swift-xen"),
        .product(name: "Crypto", package: "swift-crypto"), .product(name: "_CryptoExtras", package: "swift-crypto"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict),
    // What the programs for a real Xen share.
    .target(
      name: "ToolSupport",
      dependencies: [
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "XenPlatform", package: "swift-xen"),
      ],
      swiftSettings: strict),
    .executableTarget(
      name: "xen-device",
      dependencies: [
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "NetFront", package: "swift-xen"),
        .product(name: "XenBus", package: "swift-xen"),
        .product(name: "XenNative", package: "swift-xen"),
      ],
      swiftSettings: strict),
    // What a network card of ours can be connected to, and a host that answers; no platform in it.
    .target(
      name: "NetFrontTool",
      dependencies: [
        .product(name: "NetBack", package: "swift-xen"), .product(name: "NetFront", package: "swift-xen"),
        .product(name: "Pcap", package: "swift-xen"), .product(name: "Logging", package: "swift-log"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict),
    .executableTarget(
      name: "xen-netfront",
      dependencies: [
        "NetFrontTool", "ToolSupport", .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "NetBack", package: "swift-xen"), .product(name: "NetFront", package: "swift-xen"),
        .product(name: "XenNative", package: "swift-xen"),
      ],
      swiftSettings: strict),
    // A card as a SwiftNIO channel, and that host as a handler.
    .target(
      name: "NetFrontNIO",
      dependencies: [
        "NetFrontTool", .product(name: "NetBack", package: "swift-xen"),
        .product(name: "NetFront", package: "swift-xen"),
        .product(name: "NIOCore", package: "swift-nio"),
      ],
      swiftSettings: strict),
    .executableTarget(
      name: "net-responder",
      dependencies: [
        "NetFrontNIO", "NetFrontTool", "ToolSupport",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "NetBack", package: "swift-xen"), .product(name: "NetFront", package: "swift-xen"),
        .product(name: "XenNative", package: "swift-xen"), .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
      ],
      swiftSettings: strict),
    .executableTarget(
      name: "net-tap",
      dependencies: [
        "ExampleSupport",
        "NetFrontTool",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "BlkBack", package: "swift-xen"),
        .product(name: "NetBack", package: "swift-xen"),
        .product(name: "NetFront", package: "swift-xen"),
        .product(name: "XenLoopback", package: "swift-xen"),
      ],
      swiftSettings: strict),
    // What the examples share: a machine with a driver domain, and how they talk to their user.
    .target(
      name: "ExampleSupport",
      dependencies: [
        .product(name: "BlkBack", package: "swift-xen"),
        .product(name: "XenLoopback", package: "swift-xen"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: strict),
    // The network block device's protocol, from bytes to validated requests; no Xen and no socket in it.
    .target(
      name: "NBDProtocol", dependencies: [.product(name: "NIOCore", package: "swift-nio")], swiftSettings: strict),
    .executableTarget(
      name: "blk-nbd",
      dependencies: [
        "BlkBackTool",
        "ExampleSupport",
        "NBDProtocol",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "BlkBack", package: "swift-xen"),
        .product(name: "BlkFront", package: "swift-xen"),
        .product(name: "BlockStores", package: "swift-xen"),
        .product(name: "XenLoopback", package: "swift-xen"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict),
    .testTarget(
      name: "NBDProtocolTests", dependencies: ["NBDProtocol", .product(name: "NIOCore", package: "swift-nio")],
      swiftSettings: strict),
    .testTarget(
      name: "BlkBackToolTests",
      dependencies: [
        "BlkBackTool", .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "BlkBack", package: "swift-xen"), .product(name: "BlkFront", package: "swift-xen"),
        .product(name: "BlockStores", package: "swift-xen"),
        .product(name: "XenLoopback", package: "swift-xen"),
      ],
      swiftSettings: strict),
    .testTarget(
      name: "XenDeviceTests",
      dependencies: [
        "xen-device", .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "NetFront", package: "swift-xen"), .product(name: "XenBus", package: "swift-xen"),
        .product(name: "XenLoopback", package: "swift-xen"), .product(name: "XenNative", package: "swift-xen"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: strict),
    .testTarget(
      name: "NetFrontToolTests",
      dependencies: [
        "NetFrontNIO", "NetFrontTool", .product(name: "NetBack", package: "swift-xen"),
        .product(name: "NetFront", package: "swift-xen"), .product(name: "Pcap", package: "swift-xen"),
        .product(name: "XenLoopback", package: "swift-xen"), .product(name: "Logging", package: "swift-log"),
        .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict),
    // Runs the programs above as processes.
    .testTarget(
      name: "ExampleTests", dependencies: [.product(name: "Crypto", package: "swift-crypto")], swiftSettings: strict),
  ]
)
