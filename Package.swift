// swift-tools-version: 6.2
import PackageDescription

/// Every Swift target: strict memory safety, and a warning is an error.
let strict: [SwiftSetting] = [.strictMemorySafety(), .treatAllWarnings(as: .error)]

let package = Package(
  name: "swift-xen",
  products: [
    .library(name: "XenPlatform", targets: ["XenPlatform"]),
    .library(name: "XenRing", targets: ["XenRing"]),
    .library(name: "XenLoopback", targets: ["XenLoopback"]),
    .library(name: "XenNative", targets: ["XenNative"]),
    .library(name: "PlatformConformance", targets: ["PlatformConformance"]),
  ],
  targets: [
    .target(name: "CSharedMemory", path: "Sources/Shims/CSharedMemory"),
    .target(name: "CLinux", path: "Sources/Shims/CLinux"),
    .systemLibrary(
      name: "CXen", path: "Sources/Shims/CXen", pkgConfig: "xenstore xengnttab xenevtchn",
      providers: [.apt(["libxen-dev"])]),
    .target(name: "XenPlatform", dependencies: ["CLinux"], swiftSettings: strict),
    .target(name: "XenRing", dependencies: ["CSharedMemory", "XenPlatform"], swiftSettings: strict),
    .target(name: "XenLoopback", dependencies: ["CLinux", "XenPlatform"], swiftSettings: strict),
    .target(name: "XenNative", dependencies: ["CXen", "XenPlatform"], swiftSettings: strict),
    .target(
      name: "PlatformConformance", dependencies: ["XenPlatform"], path: "Tests/PlatformConformance",
      swiftSettings: strict),
    .testTarget(
      name: "XenLoopbackTests", dependencies: ["PlatformConformance", "XenLoopback"], swiftSettings: strict),
    .testTarget(name: "XenNativeTests", dependencies: ["CXen", "XenNative"], swiftSettings: strict),
    .testTarget(name: "XenRingTests", dependencies: ["XenRing"], swiftSettings: strict),
  ]
)
