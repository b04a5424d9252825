// swift-tools-version: 6.2
import PackageDescription

/// Every Swift target: strict memory safety, and a warning is an error.
let strict: [SwiftSetting] = [.strictMemorySafety(), .treatAllWarnings(as: .error)]
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let system = Target.Dependency.product(name: "SystemPackage", package: "swift-system")

// A change is only seen by what names the module: not by what has it from another one, which would be built against a layout that is
// no more. So products and targets name all that comes with what they use, and Tests/check-package holds them to it.
let platform = ["CLinux", "CSharedMemory", "XenPlatform"]
let bus = platform + ["XenBus"]
let drivers = bus + ["XenRing"]
let blk = drivers + ["BlkIf"]
let blkBack = blk + ["BlkBack"]
let blockStores = blkBack + ["BlockStores", "CIOUring"]
let blkFront = blk + ["BlkFront"]
let net = drivers + ["NetIf"]
let netBack = net + ["NetBack", "Pcap"]
let netFront = net + ["NetFront"]
let loopback = platform + ["XenLoopback"]
let testSupport = drivers + ["TestSupport", "XenLoopback"]
let xenstored = platform + ["CXenstoredEnvironment", "XenNative", "XenstoredSupport"]

/// Each once.
func targets(_ names: [String]...) -> [Target.Dependency] {
  Set(names.joined()).sorted().map { .target(name: $0) }
}

let package = Package(
  name: "swift-xen",
  products: [
    .library(name: "XenPlatform", targets: platform),
    .library(name: "XenRing", targets: platform + ["XenRing"]),
    .library(name: "XenBus", targets: bus),
    .library(name: "BlkBack", targets: blkBack),
    .library(name: "BlockStores", targets: blockStores),
    .library(name: "BlkFront", targets: blkFront),
    .library(name: "NetBack", targets: netBack),
    .library(name: "NetFront", targets: netFront),
    .library(name: "Pcap", targets: ["Pcap"]),
    .library(name: "XenLoopback", targets: loopback),
    .library(name: "XenNative", targets: platform + ["XenNative"]),
    .library(name: "PlatformConformance", targets: platform + ["PlatformConformance"]),
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
    .target(name: "XenRing", dependencies: targets(platform), swiftSettings: strict),
    .target(name: "XenBus", dependencies: targets(platform) + [logging], swiftSettings: strict),

    // The drivers, and the wire that each pair shares.
    .target(name: "BlkIf", dependencies: targets(bus), swiftSettings: strict),
    .target(name: "BlkBack", dependencies: targets(blk) + [system], swiftSettings: strict),
    .target(
      name: "BlockStores", dependencies: targets(blkBack, ["CIOUring", "CNBD"]) + [system], swiftSettings: strict),
    .target(name: "BlkFront", dependencies: targets(blk), swiftSettings: strict),
    .target(name: "NetIf", dependencies: targets(drivers), swiftSettings: strict),
    .target(name: "NetBack", dependencies: targets(net, ["Pcap"]), swiftSettings: strict),
    .target(name: "NetFront", dependencies: targets(net), swiftSettings: strict),
    .target(name: "Pcap", dependencies: [system], swiftSettings: strict),

    // The platforms.
    .target(name: "XenLoopback", dependencies: targets(platform) + [system], swiftSettings: strict),
    .target(name: "XenNative", dependencies: targets(platform, ["CXen"]), swiftSettings: strict),

    .target(name: "CRingOracle", path: "Tests/CRingOracle"),
    .target(
      name: "PlatformConformance", dependencies: targets(platform), path: "Tests/PlatformConformance",
      swiftSettings: strict),
    .target(
      name: "TestSupport", dependencies: targets(drivers, loopback) + [logging, system], path: "Tests/Support",
      swiftSettings: strict),
    // A real xenstored for tests, without a hypervisor.
    .target(name: "CXenstoredEnvironment", path: "Tests/Xenstored/Environment"),
    .target(
      name: "XenstoredSupport", dependencies: targets(platform, ["CXen", "CXenstoredEnvironment", "XenNative"]),
      path: "Tests/Xenstored/Support", swiftSettings: strict),
    .testTarget(name: "XenRingTests", dependencies: targets(testSupport, ["CRingOracle"]), swiftSettings: strict),
    .testTarget(
      name: "XenBusTests", dependencies: targets(testSupport, xenstored), swiftSettings: strict),
    .testTarget(
      name: "XenLoopbackTests",
      dependencies: targets(testSupport, blkBack, blkFront, ["PlatformConformance"]),
      swiftSettings: strict),
    .testTarget(
      name: "XenNativeTests",
      dependencies: targets(testSupport, xenstored, ["CXen", "PlatformConformance"]),
      swiftSettings: strict),
    .testTarget(
      name: "BlkTests",
      dependencies: targets(testSupport, blockStores, blkFront, ["CRingOracle"]) + [system],
      swiftSettings: strict),
    .testTarget(
      name: "BlockStoresTests",
      dependencies: targets(testSupport, blockStores, blkFront) + [system],
      swiftSettings: strict),
    .testTarget(
      name: "NetTests",
      dependencies: targets(testSupport, netBack, netFront, ["CRingOracle"]) + [system],
      swiftSettings: strict),
    .testTarget(
      name: "SecurityTests",
      dependencies: targets(testSupport, blockStores, blkFront, netBack, netFront) + [system],
      swiftSettings: strict),
    // What Fuzz/ fuzzes, as a target of this package's too, so that its tests run the corpora.
    .target(
      name: "FuzzCases",
      dependencies: targets(blkBack, blkFront, netBack, netFront, loopback) + [logging],
      path: "Fuzz/Sources/FuzzTargets", swiftSettings: strict),
    .testTarget(
      name: "FuzzTests", dependencies: targets(blkBack, blkFront, netBack, netFront, loopback, ["FuzzCases"]),
      swiftSettings: strict),
    .testTarget(name: "PcapTests", dependencies: targets(testSupport, ["Pcap"]) + [system], swiftSettings: strict),
  ]
)
