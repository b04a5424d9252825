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
  ],
  targets: [
    .target(name: "CSharedMemory", path: "Sources/Shims/CSharedMemory"),
    .target(name: "CLinux", path: "Sources/Shims/CLinux"),
    .target(name: "XenPlatform", dependencies: ["CLinux"], swiftSettings: strict),
    .target(name: "XenRing", dependencies: ["CSharedMemory", "XenPlatform"], swiftSettings: strict),
    .target(name: "XenLoopback", dependencies: ["CLinux", "XenPlatform"], swiftSettings: strict),
    .testTarget(name: "XenRingTests", dependencies: ["XenRing"], swiftSettings: strict),
  ]
)
