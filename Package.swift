// swift-tools-version: 6.2
import PackageDescription

/// Every Swift target: strict memory safety, and a warning is an error.
let strict: [SwiftSetting] = [.strictMemorySafety(), .treatAllWarnings(as: .error)]

let package = Package(
  name: "swift-xen",
  products: [
    .library(name: "XenPlatform", targets: ["XenPlatform"]),
    .library(name: "XenRing", targets: ["XenRing"]),
  ],
  targets: [
    .target(name: "CSharedMemory", path: "Sources/Shims/CSharedMemory"),
    .target(name: "XenPlatform", dependencies: ["CSharedMemory"], swiftSettings: strict),
    .target(name: "XenRing", dependencies: ["CSharedMemory", "XenPlatform"], swiftSettings: strict),
    .target(name: "CRingOracle", path: "Tests/CRingOracle"),
    .testTarget(name: "XenRingTests", dependencies: ["XenRing", "CRingOracle"], swiftSettings: strict),
  ]
)
