// swift-tools-version: 6.2
import PackageDescription

/// Every Swift target: strict memory safety, and a warning is an error.
let strict: [SwiftSetting] = [.strictMemorySafety(), .treatAllWarnings(as: .error)]
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let system = Target.Dependency.product(name: "SystemPackage", package: "swift-system")

let package = Package(
  name: "swift-xen",
  products: [
    .library(name: "XenPlatform", targets: ["XenPlatform"]),
    .library(name: "XenRing", targets: ["XenRing"]),
    .library(name: "XenBus", targets: ["XenBus"]),
    .library(name: "BlkBack", targets: ["BlkBack"]),
    .library(name: "BlockStores", targets: ["BlockStores"]),
    .library(name: "BlkFront", targets: ["BlkFront"]),
    .library(name: "NetBack", targets: ["NetBack"]),
    .library(name: "NetFront", targets: ["NetFront"]),
    .library(name: "Pcap", targets: ["Pcap"]),
    .library(name: "XenLoopback", targets: ["XenLoopback"]),
    .library(name: "XenNative", targets: ["XenNative"]),
    .library(name: "PlatformConformance", targets: ["PlatformConformance"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-log.git", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-system.git", from: "1.4.0"),
  ],
  targets: [
    // C, as little as possible.
    .target(name: "CSharedMemory", path: "Sources/Shims/CSharedMemory"),
    .target(name: "CLinux", path: "Sources/Shims/CLinux"),
    .systemLibrary(
      name: "CXen", path: "Sources/Shims/CXen", pkgConfig: "xenstore xengnttab xenevtchn",
      providers: [.apt(["libxen-dev"])]),
    .systemLibrary(
      name: "LibURing", path: "Sources/Shims/LibURing", pkgConfig: "liburing", providers: [.apt(["liburing-dev"])]),
    .systemLibrary(
      name: "CNBD", path: "Sources/Shims/CNBD", pkgConfig: "libnbd", providers: [.apt(["libnbd-dev"])]),
    .target(name: "CIOUring", dependencies: ["LibURing"], path: "Sources/Shims/CIOUring"),

    // What drivers stand on.
    .target(name: "XenPlatform", dependencies: ["CLinux", "CSharedMemory"], swiftSettings: strict),
    .target(name: "XenRing", dependencies: ["CSharedMemory", "XenPlatform"], swiftSettings: strict),
    .target(name: "XenBus", dependencies: ["CLinux", "XenPlatform", logging], swiftSettings: strict),

    // The drivers, and the wire that each pair shares.
    .target(name: "BlkIf", dependencies: ["XenBus", "XenPlatform"], swiftSettings: strict),
    .target(name: "BlkBack", dependencies: ["BlkIf", "XenRing", system], swiftSettings: strict),
    .target(
      name: "BlockStores", dependencies: ["BlkBack", "CIOUring", "CLinux", "CNBD", system], swiftSettings: strict),
    .target(name: "BlkFront", dependencies: ["BlkIf", "XenRing"], swiftSettings: strict),
    .target(name: "NetIf", dependencies: ["XenBus", "XenPlatform", "XenRing"], swiftSettings: strict),
    .target(name: "NetBack", dependencies: ["CLinux", "NetIf", "Pcap", "XenRing"], swiftSettings: strict),
    .target(name: "NetFront", dependencies: ["NetIf", "XenRing"], swiftSettings: strict),
    .target(name: "Pcap", dependencies: [system], swiftSettings: strict),

    // The platforms.
    .target(name: "XenLoopback", dependencies: ["CLinux", "XenPlatform", system], swiftSettings: strict),
    .target(name: "XenNative", dependencies: ["CXen", "XenPlatform"], swiftSettings: strict),

    .target(name: "CRingOracle", path: "Tests/CRingOracle"),
    .target(
      name: "PlatformConformance", dependencies: ["XenPlatform"], path: "Tests/PlatformConformance",
      swiftSettings: strict),
    .target(
      name: "TestSupport", dependencies: ["XenBus", "XenLoopback", "XenRing", logging, system], path: "Tests/Support",
      swiftSettings: strict),
    // A real xenstored for tests, without a hypervisor.
    .target(name: "CXenstoredEnvironment", path: "Tests/Xenstored/Environment"),
    .target(
      name: "XenstoredSupport", dependencies: ["CXen", "CXenstoredEnvironment", "XenNative", "XenPlatform"],
      path: "Tests/Xenstored/Support", swiftSettings: strict),
    .testTarget(name: "XenRingTests", dependencies: ["XenRing", "CRingOracle", "TestSupport"], swiftSettings: strict),
    .testTarget(
      name: "XenBusTests", dependencies: ["TestSupport", "XenBus", "XenLoopback", "XenstoredSupport"],
      swiftSettings: strict),
    .testTarget(
      name: "XenLoopbackTests",
      dependencies: ["BlkBack", "BlkFront", "PlatformConformance", "TestSupport", "XenLoopback"],
      swiftSettings: strict),
    .testTarget(
      name: "XenNativeTests",
      dependencies: ["CXen", "PlatformConformance", "TestSupport", "XenLoopback", "XenNative", "XenstoredSupport"],
      swiftSettings: strict),
    .testTarget(
      name: "BlkTests",
      dependencies: ["BlkBack", "BlkFront", "BlockStores", "CRingOracle", "TestSupport", "XenLoopback", system],
      swiftSettings: strict),
    .testTarget(
      name: "BlockStoresTests",
      dependencies: ["BlkBack", "BlkFront", "BlockStores", "TestSupport", "XenLoopback", system],
      swiftSettings: strict),
    .testTarget(
      name: "NetTests",
      dependencies: ["CRingOracle", "NetBack", "NetFront", "Pcap", "TestSupport", "XenLoopback", system],
      swiftSettings: strict),
    .testTarget(
      name: "SecurityTests",
      dependencies: [
        "BlkBack", "BlkFront", "BlockStores", "NetBack", "NetFront", "TestSupport", "XenBus", "XenLoopback",
        "XenPlatform", system,
      ],
      swiftSettings: strict),
    // What Fuzz/ fuzzes, as a target of this package's too, so that its tests run the corpora.
    .target(
      name: "FuzzCases",
      dependencies: ["BlkBack", "BlkFront", "NetBack", "NetFront", "XenLoopback", "XenRing", logging],
      path: "Fuzz/Sources/FuzzTargets", swiftSettings: strict),
    .testTarget(name: "FuzzTests", dependencies: ["FuzzCases"], swiftSettings: strict),
    .testTarget(name: "PcapTests", dependencies: ["Pcap", "TestSupport", system], swiftSettings: strict),
  ]
)
