// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [.strictMemorySafety(), .treatAllWarnings(as: .error)]

// Laid out by `run` beside copies of the library's sources, so that it can break one of them.
let package = Package(
  name: "ring-threads",
  targets: [
    .target(name: "CSharedMemory", path: "Sources/Shims/CSharedMemory"),
    .target(name: "CLinux", path: "Sources/Shims/CLinux"),
    .target(name: "XenPlatform", dependencies: ["CLinux", "CSharedMemory"], swiftSettings: strict),
    .target(name: "XenRing", dependencies: ["CLinux", "CSharedMemory", "XenPlatform"], swiftSettings: strict),
    .executableTarget(
      name: "ring-threads", dependencies: ["CLinux", "CSharedMemory", "XenPlatform", "XenRing"], swiftSettings: strict),
  ]
)
